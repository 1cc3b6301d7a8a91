"""Points of a sweep that other processes train or have trained."""

import pytest

from tests.support import run_directories
from tests.support.configs import parsed
from trainer.sweep import grid, outcomes, runner
from trainer.sweep.outcomes import Outcome
from trainer.sweep.sweep_folder import State, SweepFolder

POINTS = [{"seed": str(seed)} for seed in range(6)]


class Elsewhere(SweepFolder):
    """A sweep on whose first points other machines work, until they have been asked for often."""

    def __init__(self, path, busy):
        super().__init__(path)
        self.left = dict.fromkeys(busy, 5)

    def state(self, name):
        self.left[name] = self.left.get(name, 0) - 1
        return State.UNKNOWN if self.left[name] > 0 else State.FREE


@pytest.fixture
def sweep(tmp_path):
    """sweep(busy) → a folder in which all points are finished, and the runs."""

    def make(busy=(), flags=()):
        folder = Elsewhere(tmp_path / "sweep", map(grid.folder, busy))
        folder.begin(POINTS)
        runs = []
        for point in POINTS:
            own = [f"--seed={point['seed']}"]
            run_directories.write(folder.path / grid.folder(point), *own)
            config = parsed("--epochs=2", *own, *flags)
            runs.append(runner.Run(point, [], config, grid.folder(point)))
        return folder, runs

    return make


def test_a_point_of_which_nothing_is_known_does_not_delay_the_others(sweep, logged):
    folder, runs = sweep(busy=POINTS[:2])
    assert not runner.run_sweep(runs, folder, parallel=1, retry=False)
    assert set(outcomes.read(folder.path).values()) == {Outcome(0)}
    order = [line.partition(":")[0] for line in logged]
    assert order == [grid.folder(point) for point in POINTS[2:] + POINTS[:2]]


def test_a_point_that_was_trained_with_other_flags_is_named(sweep, logged):
    folder, runs = sweep(flags=["--momentum=0.8"])
    assert not runner.run_sweep(runs, folder, parallel=1, retry=False)
    told = [line for line in logged if "is finished, but" in line]
    assert len(told) == len(POINTS)
    assert "holds a run with other flags: --momentum: unset → 0.8" in told[0]
