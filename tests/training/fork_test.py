"""Parts of a fork that whole runs in tests/commands/fork_test.py do not reach in seconds."""

from types import SimpleNamespace

import pytest

from tests.support.configs import parsed
from tests.support.steps import step_on, strategy_of
from trainer.schedule.trajectory import from_config
from trainer.training import fork, fork_state


def parent(folder, progress, *flags):
    """A checkpoint at position 128,000 of a run with `flags`."""
    progress = {"position": 128_000, "update": 1000, **progress}
    data = SimpleNamespace(examples=60_000)
    return fork.Parent(folder, folder / "1000", progress, parsed(*flags), flags, data)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], 1024),
        (["--max_batch_size=512"], 512),
        (["--initial_batch_size=2048"], 2048),
        (["--initial_batch_size=384"], 768),
    ],
)
def test_a_measured_batch_becomes_one_of_the_childs(tmp_path, flags, expected):
    before = parent(tmp_path, {"control": {"batch_size": 1024}}, "--anneal=measured")
    config = parsed("--anneal=measured", "--fork_from=a@newest", *flags)
    child = from_config(config, 60_000, 1)
    found = fork.lineage_of(before, config, child)
    assert found.before["batch_size"] == 1024
    assert found.after["batch_size"] == expected
    assert child.control.state_dict() == {"batch_size": expected}


@pytest.mark.parametrize(
    ("recorded", "pretrained", "expected"),
    [
        (None, True, 0),  # An old version recorded no starts; its norms started at 0.
        ({"0": 64}, True, 64),
        ({"0": None}, False, None),
        ({}, False, 128_000),
        ({}, True, None),
    ],
)
def test_norms_start_where_the_parent_or_the_fork_trained_them(
    cpus, tmp_path, recorded, pretrained, expected
):
    step = step_on(strategy_of(cpus, 1))
    (norm,) = step.replica.norms
    assert step.starts == {"0": 0}
    norm.moving_mean.assign(norm.moving_mean + pretrained)
    before = parent(tmp_path, {} if recorded is None else {"statistics_starts": recorded})
    assert fork_state._statistics_starts(before, SimpleNamespace(step=step)) == {"0": expected}
