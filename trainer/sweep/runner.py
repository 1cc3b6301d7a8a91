"""Trains the points of a sweep, several at once, each in its own process.

A point is one combination of flag values, with which one run is trained (grid.py). A run prints to
output.txt in its directory. The sweep locks this file, starts the run's process, and unlocks the
file after recording the outcome. So two sweeps never train the same point at the same time. The
run's process inherits the lock. So even if a sweep is killed, each of its points stays locked until
the point's process ends.
"""

import collections
import contextlib
import dataclasses
import pathlib
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from typing import IO, Any

from trainer.run_dir import directory, result
from trainer.sweep import hparams, outcomes
from trainer.sweep.grid import Point, folder, shown
from trainer.sweep.outcomes import Outcome
from trainer.system import child_process, file_lock, stop_signals
from trainer.system.cores import split_cores
from trainer.system.output import log
from trainer.system.regular_file import opener
from trainer.system.typed_json import DamagedError, problem

_PREFIX = "crescendo train: "
_LONGEST_REASON = 65536  # Bytes at the end of the output that `_reason` searches for a message.
_LONGEST_LINE = 1000  # Largest number of characters in a line of an error message in sweep.json.


@dataclasses.dataclass(frozen=True)
class Run:
    """A point of a sweep, and how to train it.

    Attributes:
      point: values of the swept flags.
      flags: command line of `train`, including --model_dir.
      title: prefix of messages about this run.
    """

    point: Point
    flags: Sequence[str]
    title: str


@dataclasses.dataclass
class _Attempt:
    run: Run
    process: "subprocess.Popen[bytes]"
    cores: set[int]
    output: IO[bytes]
    begin: int  # Byte of the file `output` at which this attempt's output begins.
    signals: int = 0  # Number of stop signals sent to the process.


def run_sweep(runs: Sequence[Run], sweep: pathlib.Path, *, parallel: int, retry: bool) -> bool:
    """Trains the unfinished `runs` of the sweep in the folder `sweep`, up to `parallel` at once.

    Skips runs that failed before, unless `retry` is True. Passes stop signals on to the processes
    of the runs, which then save checkpoints and end. If the files of a run cannot be written,
    reports the error and skips the run.

    Returns:
      True if a stop signal arrived.
    """
    waiting = collections.deque(runs)
    held: set[str] = set()
    free = split_cores(parallel)
    running: list[_Attempt] = []
    with _signals() as received:
        while running or (waiting and not received):
            for ended in [each for each in running if each.process.poll() is not None]:
                running.remove(ended)
                free.append(ended.cores)
                _end(ended, sweep)
            for _ in range(len(waiting)):
                if not free or received:
                    break
                run = waiting.popleft()
                try:
                    output = _hold(sweep / folder(run.point))
                    if output is None:
                        waiting.append(run)
                        if run.title not in held:
                            log(f"{run.title}: waiting for another process that trains it")
                        held.add(run.title)
                    elif attempt := _start(run, sweep, output, free[0], retry):
                        running.append(attempt)
                        del free[0]
                except OSError as error:
                    file = error.filename
                    what = f"{file} cannot be written" if file else "cannot start"
                    log(f"{run.title}: {what}: {error.strerror}")
            for each in running:
                for _ in range(len(received) - each.signals):
                    each.process.terminate()
                each.signals = len(received)
            time.sleep(0.1)
        return bool(received)


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
    run: Run, sweep: pathlib.Path, output: IO[bytes], cores: set[int], retry: bool
) -> _Attempt | None:
    """Starts training `run`; if it must not be trained, closes `output` and returns None."""
    ended = _result(run, sweep)
    try:
        last = outcomes.read(sweep).get(folder(run.point), Outcome())
    except (DamagedError, OSError):
        last = Outcome()  # The next call of `_record` reports the damaged file.
    if ended and last.status != 0:  # A sweep was killed before it recorded the outcome.
        log(_line(run, Outcome(0), ended))
        _record(run, sweep, Outcome(0), ended)
    elif last.failed and not ended and not retry:
        log(f"{run.title}: failed before, with status {last.status}; --sweep_retry tries it again")
    elif not ended:
        begun = any((sweep / folder(run.point) / "checkpoints").glob("0*"))
        log(f"{run.title}: {'resumes' if begun else 'starts'}")
        begin = output.tell()
        process = child_process.start(["train", *run.flags], cores, output)
        return _Attempt(run, process, cores, output, begin)
    _close(output)
    return None


def _result(run: Run, sweep: pathlib.Path) -> dict[str, Any] | None:
    """Returns the run's result, or None if it is missing or unreadable; logs read errors."""
    path = sweep / folder(run.point)
    try:
        return result.read(path)
    except (DamagedError, OSError) as error:
        log(f"{run.title}: {path / result.FILE} {problem(error)}")
        return None


def _end(attempt: _Attempt, sweep: pathlib.Path) -> None:
    """Records and logs how an attempt ended, and unlocks its output."""
    code = attempt.process.returncode
    if code < 0:
        end = Outcome(128 - code, f"killed by {signal.Signals(-code).name}")
    else:
        end = Outcome(code, _reason(attempt.output, attempt.begin) if code else None)
    ended = _result(attempt.run, sweep)
    log(_line(attempt.run, end, ended))
    try:
        _record(attempt.run, sweep, end, ended)
    except OSError as error:
        log(f"{attempt.run.title}: {error.filename} cannot be written: {error.strerror}")
    _close(attempt.output)


def _record(run: Run, sweep: pathlib.Path, end: Outcome, ended: dict[str, Any] | None) -> None:
    """Records an outcome in sweep.json; writes a TensorBoard row if the run finished or failed."""
    if ended or end.failed:
        numbers = {name: ended[name] for name in result.RESULTS} if ended else None
        flags = {name: shown(name, value) for name, value in run.point.items()}
        hparams.write(sweep / folder(run.point), flags, numbers)
    outcomes.record_outcome(sweep, run.point, end)


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
