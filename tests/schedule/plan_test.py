import itertools

import pytest

from tests.configs import parsed
from trainer.schedule import plan
from trainer.schedule.trajectory import from_config


def phases(*arguments, examples=50_000, replicas=1, micro_batch_size=128):
    config = parsed(*arguments)
    return list(
        plan.phases(
            from_config(config, examples, replicas),
            replicas=replicas,
            ghost_batch_size=config.ghost_batch_size,
            micro_batch_size=micro_batch_size,
        )
    )


@pytest.mark.parametrize(
    ("recipe", "updates"),
    [("decay", 78_125), ("grow", 29_141), ("grow_rate", 6_406), ("grow_momentum", 2_305)],
)
def test_updates_of_smith_on_cifar10(recipe, updates):
    found = phases(f"--flagfile=flags/cifar10_wrn_16_4_{recipe}.flags")
    assert abs(sum(phase.updates for phase in found) - updates) <= 3


def test_phases_are_maximal_and_contiguous():
    found = phases("--flagfile=flags/cifar10_wrn_16_4_grow.flags")
    assert [p.batch_size for p in found] == [128, 640, 3200, 5120]
    assert [p.micro_batch_size * p.accumulation for p in found] == [128, 640, 3200, 5120]
    for before, after in itertools.pairwise(found):
        assert after.start_update == before.start_update + before.updates
        examples = (after.start_epoch - before.start_epoch) * 50_000
        assert examples == pytest.approx(before.updates * before.batch_size)
        assert after.noise_scale == pytest.approx(before.noise_scale / 5)


def test_the_table_condenses_a_ramp():
    found = phases("--warmup_epochs=1", "--initial_batch_size=640", "--epochs=2")
    assert len(found) == 79 + 1
    rows = plan.table(found).splitlines()
    assert len(rows) == 3
    assert "0.1 → 0.4994" in rows[1]
    assert rows[2].split()[:4] == ["1.01", "79", "78", "640"]


def test_a_ramp_that_turns_is_shown_with_its_peak():
    rows = plan.table(phases("--anneal=cyclical", "--cycle_epochs=1", "--epochs=2")).splitlines()
    assert len(rows) == 5  # up, down, up, down
    assert "0.025 → 0.099" in rows[1]
    assert "→ 0.02" in rows[2]
