"""The folder of a sweep in a bucket, on whose points several machines may work.

    sweep.json                                     points and outcomes (outcomes.py)
    momentum=0.9,seed=0/lease.json                 who trains the point
    momentum=0.9,seed=0/generation-000001/...      the point's run (run_dir/manifest.py)

Each point is a run of its own in the bucket. On each machine, a local folder has sweep.json, and
for each point output.txt and copies of the small files of the run. The content of the bucket
replaces these copies.
"""

import contextlib
from collections.abc import Sequence
from typing import Any

from trainer.buckets import lease
from trainer.buckets import objects as buckets
from trainer.buckets import url as urls
from trainer.buckets.url import BucketUrl
from trainer.config.flags import Config
from trainer.errors import UserError
from trainer.run_dir import result
from trainer.run_dir.bucket_connection import (
    at_once,
    connect,
    local_disk,
    local_folder,
    patiently,
)
from trainer.run_dir.directory import DamagedRunError
from trainer.sweep import outcomes
from trainer.sweep.bucket_points import BucketPoints
from trainer.sweep.grid import Point, folder
from trainer.sweep.outcome_thread import OutcomeThread
from trainer.sweep.outcomes import FILE, Outcome
from trainer.sweep.point_states import PointStates
from trainer.sweep.shared_outcomes import SharedOutcomes
from trainer.sweep.sweep_folder import State, SweepFolder
from trainer.system import stop_signals


class BucketSweepFolder(SweepFolder):
    """A sweep at `url`.

    Args:
      url: URL of the sweep.
      cache_dir: folder for local directories; None for the user's cache.
      points: points of the sweep.

    Raises:
      UserError: if the bucket or the local folder cannot be used, or `url` is not the folder of a
        sweep.
      TryAgainError: if the bucket does not answer.
    """

    def __init__(self, url: BucketUrl, cache_dir: str | None, points: Sequence[Point]) -> None:
        super().__init__(local_folder(url, cache_dir))
        self._url, self._names = url, [folder(point) for point in points]
        for name in self._names:
            if problem := urls.problem(f"{url}/{name}"):
                raise UserError(f"--model_dir={url} has the point {name}, whose URL {problem}.")
        objects = connect(url)
        patiently(url, lambda: buckets.check_conditions(objects))
        self._shared = SharedOutcomes(objects, str(url))
        self._points = BucketPoints(url, objects, self.path, cache_dir)
        self._damaged: dict[str, str] = {}
        with local_disk(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            if patiently(url, self._shared.exists):
                self._damaged = self._points.refresh_all(self._names)
            else:
                for name in self._names:
                    self._points.forget(name)
        self._states = PointStates(self._look, str(url))
        self._thread = OutcomeThread(self._shared, self.path, str(url))

    def model_dir(self, name: str) -> str:
        return str(self._points.url(name))

    def check(self, name: str, config: Config) -> None:
        if name in self._damaged:
            raise DamagedRunError(self._damaged[name])
        try:
            super().check(name, config)
        except UserError as error:  # The user knows the URL, and not the local copy.
            message = str(error).replace(str(self.path / name), self.model_dir(name))
            raise type(error)(message) from error

    def begin(self, points: Sequence[Point], precision: str | None = None) -> str | None:
        content = patiently(self._url, lambda: self._shared.begin(points, precision))
        with local_disk(self.path):
            outcomes.replace(self.path, content)
        return content.precision

    def state(self, name: str) -> State:
        if (self.path / name / result.FILE).exists():  # Nothing is left to train.
            return State.FREE
        return self._states.state(name)

    def _look(self, name: str) -> bool:
        """Returns whether the point may be trained; if so, reads its files and its outcome."""

        def recorded() -> bool:
            return self._thread.read().get(name, Outcome()).status is not None

        free = self._points.may_start(name, recorded)
        if free:
            self._thread.read()
        return free

    def begun(self, name: str) -> bool:
        return self._points.begun(name)

    def collect(self, name: str, status: int) -> None:
        if status == 0:  # The bucket has all files of the run.
            self._points.collect(name)

    def is_taken(self, name: str, reason: str | None) -> bool:
        taken = lease.is_taken(reason or "", self.model_dir(name))
        if taken:
            self._states.set_busy(name)
        return taken

    def record(self, point: Point, end: Outcome, ended: dict[str, Any] | None) -> None:
        self._thread.record(point, end)

    def finish(self, stopped: bool) -> str:
        self._states.close()
        with stop_signals.watched() as signalled:
            signalled()  # From here on, a first signal does not end the process at once.
            if self._thread.close(lambda: stopped or signalled(), self._read_others):
                return ""
        return (
            f"{self._url}/{FILE} lacks the newest outcomes of this process.\n"
            "Give the same command again when the bucket can be reached: finished points are not "
            "trained again."
        )

    def _read_others(self) -> None:
        """Reads the results of points that other machines have finished meanwhile."""
        ends = outcomes.read(self.path)
        lacking = [
            name
            for name in self._names
            if ends.get(name, Outcome()).status == 0
            and not (self.path / name / result.FILE).exists()
        ]

        def read(name: str) -> None:
            with contextlib.suppress(UserError):  # The table lacks the result of a damaged run.
                self._points.refresh(name)

        at_once(read, lacking)
