"""Points of a sweep that other processes train or have trained."""

import pytest

from tests.support import run_directories
from tests.support.configs import parsed
from trainer.sweep import grid, outcomes, runner
from trainer.sweep.outcomes import Outcome
from trainer.sweep.sweep_folder import State, SweepFolder

POINTS = [{"seed": str(seed)} for seed in range(6)]


class Elsewhere(SweepFolder):
    """A sweep of which a bucket tells nothing of the points `busy` the first `times` times."""

    def __init__(self, path, busy, times):
        super().__init__(path)
        self.left = dict.fromkeys(busy, times)

    def state(self, name):
        self.left[name] = self.left.get(name, 0) - 1
        return State.UNKNOWN if self.left[name] > 0 else State.FREE


@pytest.fixture
def sweep(tmp_path):
    """sweep(busy, times) → a folder in which all points are finished, and the runs."""

    def make(busy=(), times=0, flags=()):
        folder = Elsewhere(tmp_path / "sweep", map(grid.folder, busy), times)
        folder.begin(POINTS)
        runs = []
        for point in POINTS:
            own = [f"--seed={point['seed']}"]
            run_directories.write(folder.path / grid.folder(point), *own)
            config = parsed("--epochs=2", *own, *flags)
            runs.append(runner.Run(point, [], config, grid.folder(point)))
        return folder, runs

    return make


@pytest.mark.parametrize(
    ("seconds", "order"), [(0.2, POINTS[2:] + POINTS[:2]), (5.0, POINTS)], ids=["away", "slow"]
)
def test_points_wait_some_seconds_for_an_earlier_one_of_which_nothing_is_known(
    sweep, logged, monkeypatch, seconds, order
):
    monkeypatch.setattr(runner, "_LONGEST_DELAY", seconds)
    folder, runs = sweep(busy=POINTS[:2], times=8)
    assert not runner.run_sweep(runs, folder, parallel=1, retry=False)
    assert set(outcomes.read(folder.path).values()) == {Outcome(0)}
    assert [line.partition(":")[0] for line in logged] == [grid.folder(each) for each in order]


def test_a_point_that_was_trained_with_other_flags_is_named(sweep, logged):
    folder, runs = sweep(flags=["--momentum=0.8"])
    assert not runner.run_sweep(runs, folder, parallel=1, retry=False)
    told = [line for line in logged if "is finished, but" in line]
    assert len(told) == len(POINTS)
    assert "holds a run with other flags: --momentum: unset → 0.8" in told[0]
