from itertools import pairwise

import pytest

from tests.support.configs import layouts, parsed
from trainer.schedule import plan
from trainer.schedule.trajectory import Trajectory, from_config


def phases(*arguments, examples=50_000, replicas=1, micro_batch_size=128):
    config = parsed(*arguments)
    return list(
        plan.phases(
            from_config(config, examples, replicas),
            layouts(config, replicas, micro_batch_size),
        )
    )


def ramps(*arguments, examples=50_000):
    config = parsed(*arguments)
    return plan.ramps(from_config(config, examples, 1), layouts(config))


@pytest.mark.parametrize(
    ("recipe", "updates"),
    [("decay", 78_125), ("grow", 29_141), ("grow_rate", 6_406), ("grow_momentum", 2_305)],
)
def test_updates_on_cifar10_are_those_of_smith(recipe, updates):
    found = phases(f"--flagfile=flags/cifar10_wrn_16_4_{recipe}.flags")
    assert abs(sum(phase.updates for phase in found) - updates) <= 3


IMAGENET = 1_281_167
IMAGENET_UPDATES = {
    "inception_resnet_v2_decay": 14_075,
    "inception_resnet_v2_grow": 5_865,
    "inception_resnet_v2_momentum_95": 3_519,
    "inception_resnet_v2_momentum_975": 2_346,
    "resnet_50_goyal_256": 90 * IMAGENET // 256,
    "resnet_50_goyal_8192": 90 * IMAGENET // 8192,
    "resnet_50_smith": 30 * IMAGENET // 8192 + 60 * IMAGENET // 16384,
    "resnet_50_lars_32768": 90 * IMAGENET // 32768,
}


def imagenet(recipe, **options):
    return phases(f"--flagfile=flags/imagenet_{recipe}.flags", examples=IMAGENET, **options)


@pytest.mark.parametrize(("recipe", "updates"), IMAGENET_UPDATES.items())
def test_imagenet_recipes_have_the_expected_updates_on_eight_replicas(recipe, updates):
    found = imagenet(recipe, replicas=8)
    assert abs(sum(phase.updates for phase in found) - updates) <= 5
    for phase in found:
        assert 8 * phase.micro_batch_size * phase.accumulation == phase.batch_size


def test_the_imagenet_recipes_grow_at_the_first_point_alone():
    for recipe, sizes in [
        ("inception_resnet_v2_grow", [8192] + 3 * [65536]),
        ("inception_resnet_v2_momentum_95", [16384] + 3 * [65536]),
        ("inception_resnet_v2_momentum_975", [32768] + 3 * [65536]),
    ]:
        found, decay = imagenet(recipe), imagenet("inception_resnet_v2_decay")
        assert [phase.batch_size for phase in found] == sizes
        assert found[0].learning_rate == 3.0
        for phase, other in zip(found, decay, strict=True):
            assert phase.noise_scale == pytest.approx(other.noise_scale)


def test_the_resnet_50_recipes_warm_up_linearly_over_five_epochs():
    for recipe, sizes in [
        ("resnet_50_goyal_8192", [8192] * 4),
        ("resnet_50_smith", [8192, 16384, 16384, 16384]),
    ]:
        *ramp, first, second, third, fourth = imagenet(recipe)
        assert ramp[0].learning_rate == pytest.approx(0.1)
        rises = [after.learning_rate - before.learning_rate for before, after in pairwise(ramp)]
        assert rises == pytest.approx([3.1 * 8192 / (5 * IMAGENET)] * len(rises))
        assert (first.learning_rate, first.start_epoch) == (3.2, pytest.approx(5, abs=0.01))
        assert [p.batch_size for p in (first, second, third, fourth)] == sizes


def test_the_lars_rate_is_the_published_polynomial_after_warm_up():
    found = imagenet("resnet_50_lars_32768")
    rates = {phase.start_epoch: phase.learning_rate for phase in found}
    for epoch, rate in rates.items():
        if epoch >= 14:
            assert rate == pytest.approx(32 * (1 - (epoch - 14) / 76) ** 2, rel=1e-4)
        else:
            assert 32 * epoch / 14 <= rate <= 32 * epoch / 14 + 3.2
    assert max(rates.values()) == pytest.approx(32, rel=2e-3)


def test_phases_are_maximal_and_contiguous():
    found = phases("--flagfile=flags/cifar10_wrn_16_4_grow.flags")
    assert [p.batch_size for p in found] == [128, 640, 3200, 5120]
    assert [p.micro_batch_size * p.accumulation for p in found] == [128, 640, 3200, 5120]
    for before, after in pairwise(found):
        assert after.start_update == before.start_update + before.updates
        examples = (after.start_epoch - before.start_epoch) * 50_000
        assert examples == pytest.approx(before.updates * before.batch_size)
        assert after.noise_scale == pytest.approx(before.noise_scale / 5)


def test_the_table_condenses_a_ramp():
    found = phases("--warmup_epochs=1", "--initial_batch_size=640", "--epochs=2")
    assert len(found) == 79 + 1
    rows = plan.table(ramps("--warmup_epochs=1", "--initial_batch_size=640", "--epochs=2"))
    rows = rows.splitlines()
    assert len(rows) == 3
    assert "0.1 → 0.4994" in rows[1]
    assert rows[2].split()[:4] == ["1.01", "79", "78", "640"]


def test_a_ramp_that_turns_is_shown_with_its_peak():
    rows = plan.table(ramps("--anneal=cyclical", "--cycle_epochs=1", "--epochs=2")).splitlines()
    assert len(rows) == 5  # The header precedes two rises and two falls.
    assert "0.025 → 0.099" in rows[1]
    assert "→ 0.02" in rows[2]


def test_a_warm_up_of_a_falling_rate_is_shown_with_its_peak():
    """Checks that the table shows the update up to which a linear warm-up times a cosine rises."""
    flags = ("--anneal=cosine", "--warmup_epochs=9", "--warmup_from=0.01", "--epochs=10")
    rates = [phase.learning_rate for phase in phases(*flags)]
    found = [ramp.first.learning_rate for ramp in ramps(*flags)]
    assert found[:2] == [rates[0], pytest.approx(max(rates))]


def test_ramps_have_as_many_updates_as_the_phases():
    for anneal in ("cosine", "cyclical", "polynomial"):
        flags = (f"--anneal={anneal}", "--anneal_with=batch_size", "--warmup_epochs=1")
        whole = sum(phase.updates for phase in phases(*flags))
        assert sum(ramp.first.updates for ramp in ramps(*flags)) == whole


def test_a_plan_of_many_updates_evaluates_the_schedule_rarely(monkeypatch):
    """Plans 10⁸ examples and up to 1.1 million updates."""
    calls = []
    at = Trajectory.at
    monkeypatch.setattr(Trajectory, "at", lambda *args: calls.append(args) or at(*args))
    for flags in (
        ["--anneal=cosine"],
        ["--anneal=step", "--anneal_epochs=30%,60%,80%", "--anneal_with=batch_size"],
        ["--anneal=cyclical"],
        ["--anneal=exponential", "--anneal_epochs=30"],
    ):
        found = ramps(
            *[*flags, "--epochs=90", "--warmup_epochs=5", "--initial_batch_size=8192"],
            examples=100_000_000,
        )
        assert sum(ramp.first.updates for ramp in found) > 300_000
    assert len(calls) < 3000


@pytest.mark.parametrize("width", [30, 50, 60, 80, 100])
def test_a_narrow_terminal_leaves_out_the_least_needed_columns(width):
    found = ramps("--anneal=step", "--anneal_epochs=50%", "--anneal_with=batch_size")
    *rows, last = plan.table(found, width=width).splitlines()
    assert max(map(len, rows)) <= max(width, 38)  # The other four always stay.
    named = ("update", "momentum", "noise scale", "layout")
    missing = [name for name in named if name not in rows[0].replace("updates", "")]
    assert not missing or last == f"(a wider terminal shows {', '.join(missing)} too)"
    assert bool(missing) == (width < 79)
