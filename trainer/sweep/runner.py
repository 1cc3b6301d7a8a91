"""Trains the points of a sweep, several at once, each in its own process.

A point is one combination of flag values, with which one run is trained (grid.py). A run prints to
output.txt in its directory. The sweep locks this file, starts the run's process, and unlocks the
file after recording the outcome. So two sweeps never train the same point at the same time. The
run's process inherits the lock. So even if a sweep is killed, each of its points stays locked until
the point's process ends. In a bucket, the lease of each run has the same purpose between machines.
"""

import contextlib
import dataclasses
import pathlib
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from typing import IO, Any

from trainer.config.flags import Config
from trainer.errors import ExitStatus, TryAgainError, UserError
from trainer.run_dir import directory, result
from trainer.sweep import outcomes
from trainer.sweep.grid import Point, folder
from trainer.sweep.outcomes import Outcome
from trainer.sweep.sweep_folder import State, SweepFolder
from trainer.system import child_process, file_lock, stop_signals
from trainer.system.cores import split_cores
from trainer.system.output import log
from trainer.system.regular_file import opener
from trainer.system.typed_json import DamagedError, problem

_PREFIX = "crescendo train: "
_LONGEST_REASON = 65536  # Bytes at the end of the output that `_reason` searches for a message.
_LONGEST_LINE = 1000  # Largest number of characters in a line of an error message in sweep.json.
_LONGEST_DELAY = 5.0  # Most seconds for which a point of unknown state delays later points.


@dataclasses.dataclass(frozen=True)
class Run:
    """A point of a sweep, and how to train it.

    Attributes:
      point: values of the swept flags.
      flags: command line of `train`, including --model_dir.
      config: the parsed command line.
      title: prefix of messages about this run.
    """

    point: Point
    flags: Sequence[str]
    config: Config
    title: str


@dataclasses.dataclass
class _Attempt:
    run: Run
    process: "subprocess.Popen[bytes]"
    cores: set[int]
    output: IO[bytes]
    begin: int  # Byte of the file `output` at which this attempt's output begins.
    signals: int = 0  # Number of stop signals sent to the process.


def run_sweep(runs: Sequence[Run], sweep: SweepFolder, *, parallel: int, retry: bool) -> bool:
    """Trains the unfinished `runs` of a sweep, up to `parallel` at once.

    Skips runs that failed before, unless `retry` is True. Passes stop signals on to the processes
    of the runs, which then save checkpoints and end. If the files of a run cannot be written,
    reports the error and skips the run.

    Returns:
      True if a stop signal arrived, or a point was skipped because a bucket did not answer.
    """
    runner = _Runner(runs, sweep, parallel, retry)
    with _signals() as received:
        while runner.running or (runner.waiting and not received):
            runner.end_some()
            runner.start_some(received)
            for each in runner.running:
                for _ in range(len(received) - each.signals):
                    each.process.terminate()
                each.signals = len(received)
            time.sleep(0.1)
        return bool(received) or runner.left


class _Runner:
    """Starts and ends the processes of the runs of a sweep.

    Attributes:
      waiting: runs that are not started yet.
      running: attempts whose processes run, or have ended since the last `end_some`.
      left: whether a run was left out, because a bucket did not answer.
    """

    def __init__(self, runs: Sequence[Run], sweep: SweepFolder, parallel: int, retry: bool) -> None:
        self.waiting = list(runs)
        self.running: list[_Attempt] = []
        self.left = False
        self._sweep, self._retry = sweep, retry
        self._held: set[str] = set()
        # Time at which the state of a point was first unknown, by the point's folder.
        self._unknown: dict[str, float] = {}
        self._before = {folder(run.point): _last(sweep, folder(run.point)) for run in runs}
        self._free = split_cores(parallel)

    def end_some(self) -> None:
        """Records the outcomes of processes that have ended."""
        for ended in [each for each in self.running if each.process.poll() is not None]:
            self.running.remove(ended)
            self._free.append(ended.cores)
            if not _end(ended, self._sweep):
                self.waiting.append(ended.run)
                self._report_waiting(ended.run)

    def start_some(self, received: Sequence[int]) -> None:
        """Starts waiting runs while cores are free and no stop signal is `received`."""
        for run in list(self.waiting):
            if not self._free or received:
                break
            try:
                if self._start(run):
                    self.waiting.remove(run)
                elif self._delays(run):
                    break
            except OSError as error:
                self.waiting.remove(run)
                file = error.filename
                what = f"{file} cannot be written" if file else "cannot start"
                log(f"{run.title}: {what}: {error.strerror}")

    def _start(self, run: Run) -> bool:
        """Starts or skips `run`; returns False if it must wait."""
        name = folder(run.point)
        try:
            state = self._sweep.state(name)
        except TryAgainError as error:
            # The point was not tried, so that nothing is recorded.
            log(f"{run.title}: {error}")
            self.left = True
            return True
        if state is State.UNKNOWN:
            self._unknown.setdefault(name, time.monotonic())
            return False
        output = _hold(self._sweep.path / name) if state is State.FREE else None
        if output is None:
            self._report_waiting(run)
            return False
        if attempt := _start(run, self._sweep, output, self._free[0], self._retried(name)):
            self.running.append(attempt)
            del self._free[0]
        return True

    def _delays(self, run: Run) -> bool:
        """Returns whether the next points wait for `run`, so that points start in their order."""
        since = self._unknown.get(folder(run.point), float("-inf"))
        return time.monotonic() - since < _LONGEST_DELAY

    def _retried(self, name: str) -> bool:
        """Returns whether to train the point again if its last outcome is a failure.

        A failure that another process has recorded in the meantime is not retried.
        """
        return self._retry and self._before.get(name, Outcome()) == _last(self._sweep, name)

    def _report_waiting(self, run: Run) -> None:
        if run.title not in self._held:
            log(f"{run.title}: waiting for another process that trains it")
        self._held.add(run.title)


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """Yields a list to which each arriving stop signal is appended."""
    received: list[int] = []

    def note(number: int, _: object) -> None:
        if not stop_signals.is_repeated_hangup(number, bool(received)):
            received.append(number)

    before = {each: signal.signal(each, note) for each in stop_signals.asking()}
    try:
        yield received
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _hold(path: pathlib.Path) -> IO[bytes] | None:
    """Opens and locks a run's output.txt; returns None if another process has locked the file."""
    path.mkdir(parents=True, exist_ok=True)
    output = open(path / directory.OUTPUT, "a+b", buffering=0, opener=opener)  # noqa: SIM115
    if not file_lock.take(output):
        _close(output)
        return None
    output.seek(0, 2)
    return output


def _close(output: IO[bytes]) -> None:
    with contextlib.suppress(OSError):  # At worst, a line of the output is lost.
        output.close()


def _start(
    run: Run, sweep: SweepFolder, output: IO[bytes], cores: set[int], retry: bool
) -> _Attempt | None:
    """Starts training `run`; if it must not be trained, closes `output` and returns None."""
    ended = _result(run, sweep)
    last = _last(sweep, folder(run.point))
    if ended:
        _compare_flags(run, sweep)
    if ended and last.status != 0:  # A sweep was killed before it recorded the outcome.
        log(_line(run, Outcome(0), ended))
        sweep.record(run.point, Outcome(0), ended)
    elif last.failed and not ended and not retry:
        log(f"{run.title}: failed before, with status {last.status}; --sweep_retry tries it again")
    elif not ended:
        log(f"{run.title}: {'resumes' if sweep.begun(folder(run.point)) else 'starts'}")
        begin = output.tell()
        process = child_process.start(["train", *run.flags], cores, output)
        return _Attempt(run, process, cores, output, begin)
    _close(output)
    return None


def _compare_flags(run: Run, sweep: SweepFolder) -> None:
    """Reports if the point was trained with other flags, by another process of the sweep."""
    try:
        sweep.check(folder(run.point), run.config)
    except UserError as error:
        log(f"{run.title}: is finished, but: {str(error).partition(chr(10))[0]}")


def _last(sweep: SweepFolder, name: str) -> Outcome:
    """Returns the last outcome of a point on this machine."""
    try:
        return outcomes.read(sweep.path).get(name, Outcome())
    except (DamagedError, OSError):
        return Outcome()  # The next record of an outcome reports the damaged file.


def _result(run: Run, sweep: SweepFolder) -> dict[str, Any] | None:
    """Returns the run's result, or None if it is missing or unreadable; logs read errors."""
    path = sweep.path / folder(run.point)
    try:
        return result.read(path)
    except (DamagedError, OSError) as error:
        log(f"{run.title}: {path / result.FILE} {problem(error)}")
        return None


def _end(attempt: _Attempt, sweep: SweepFolder) -> bool:
    """Records and logs how an attempt ended, and unlocks its output.

    Returns:
      False if nothing was recorded, because another process trains the point.
    """
    run, code = attempt.run, attempt.process.returncode
    if code < 0:
        name = next((s.name for s in signal.Signals if s == -code), f"signal {-code}")
        end = Outcome(128 - code, f"killed by {name}")
    else:
        end = Outcome(code, _reason(attempt.output, attempt.begin) if code else None)
    taken = code == ExitStatus.STOPPED and sweep.is_taken(folder(run.point), end.reason)
    try:
        if not taken:
            sweep.collect(folder(run.point), code)
            ended = _result(run, sweep)
            log(_line(run, end, ended))
            sweep.record(run.point, end, ended)
    except OSError as error:
        log(f"{run.title}: {error.filename} cannot be written: {error.strerror}")
    _close(attempt.output)
    return not taken


def _line(run: Run, end: Outcome, ended: dict[str, Any] | None) -> str:
    if ended:
        return (
            f"{run.title}: top1 {ended['top1']:.4f}, loss {ended['loss']:.4f} in "
            f"{ended['updates']:,} updates, {ended['seconds']:.0f} s"
        )
    if not end.status:
        return f"{run.title}: stopped at --stop_at_epoch"
    return f"{run.title}: status {end.status}: " + (end.reason or "").partition("\n")[0]


def _reason(output: IO[bytes], begin: int) -> str:
    """Returns the first two lines of the error message.

    If the output does not have an error message, returns the last two lines of the output.
    """
    output.seek(max(begin, output.seek(0, 2) - _LONGEST_REASON))
    lines = output.read().decode(errors="replace").splitlines()
    lines = [line.rstrip()[:_LONGEST_LINE] for line in lines if line.strip()]
    starts = [i for i, line in enumerate(lines) if line.startswith(_PREFIX)]
    return "\n".join(lines[starts[-1] :][:2] if starts else lines[-2:]).removeprefix(_PREFIX)
