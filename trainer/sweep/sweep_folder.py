"""The folder of a sweep: where its points are trained, and where their outcomes are recorded.

A point is one combination of flag values, with which one run is trained (grid.py). This module has
the folder on a disk, and bucket_folder.py the folder in a bucket.
"""

import enum
import pathlib
from collections.abc import Sequence
from typing import Any

from trainer.config.flags import Config
from trainer.run_dir import directory, result
from trainer.sweep import hparams, outcomes
from trainer.sweep.grid import Point, folder, shown
from trainer.sweep.outcomes import Outcome


class State(enum.Enum):
    """Whether a point may be trained."""

    FREE = "no process on another machine trains it"
    BUSY = "a process on another machine trains it"
    UNKNOWN = "the bucket has not answered yet"


class SweepFolder:
    """A sweep on a local disk, with a folder for each point.

    Attributes:
      path: local folder with sweep.json, and for each point a folder that has at least output.txt,
        and flags.txt and result.json if the run has them.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path

    def model_dir(self, name: str) -> str:
        """Returns --model_dir of the point with the folder `name`."""
        return str(self.path / name)

    def check(self, name: str, config: Config) -> None:
        """Checks that the run of `config` can start or resume as the point `name`.

        Raises:
          DamagedRunError: if a file of the run is damaged.
          UserError: if the folder is not a run directory, or holds a run with other flags.
        """
        path = self.path / name
        directory.check(path, directory.flagfile_in(path, config))
        result.ended(path)

    def begin(self, points: Sequence[Point], precision: str | None = None) -> str | None:
        """Begins the sweep, or adds points, as `outcomes.begin` does; returns the precision."""
        return outcomes.begin(self.path, points, precision)

    def state(self, name: str) -> State:
        """Returns whether the point `name` may be trained; does not wait for a bucket.

        Raises:
          TryAgainError: if a bucket does not answer for some minutes.
        """
        return State.FREE

    def begun(self, name: str) -> bool:
        """Returns whether the run of the point `name` has a checkpoint."""
        return any((self.path / name / "checkpoints").glob("0*"))

    def collect(self, name: str, status: int) -> None:
        """Makes `path` have the files of the point `name`, whose training ended with `status`.

        Raises:
          OSError: if the files cannot be written.
        """

    def is_taken(self, name: str, reason: str | None) -> bool:
        """Returns whether training the point failed because another process trains the point.

        `reason` is the error message of the training.
        """
        return False

    def record(self, point: Point, end: Outcome, ended: dict[str, Any] | None) -> None:
        """Records an outcome; `ended` is the result of the run if it is finished.

        Raises:
          OSError: if sweep.json or the row of TensorBoard's table cannot be written.
        """
        write_row(self.path / folder(point), point, end, ended)
        outcomes.record_outcome(self.path, point, end)

    def finish(self, stopped: bool) -> str:
        """Makes all outcomes permanent, and `path` up to date.

        Args:
          stopped: whether this process was asked to stop, so that it should not wait long.

        Returns:
          A message on what is missing, with a remedy; "" if nothing is.
        """
        return ""


def write_row(path: pathlib.Path, point: Point, end: Outcome, ended: dict[str, Any] | None) -> None:
    """Writes a TensorBoard row for the run in `path` if it finished or failed.

    Raises:
      OSError: if the row cannot be written.
    """
    if ended or end.failed:
        numbers = {name: ended[name] for name in result.RESULTS} if ended else None
        hparams.write(path, {name: shown(name, value) for name, value in point.items()}, numbers)
