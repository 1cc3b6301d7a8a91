"""The runs of a sweep, each in a process of its own, several at once, until all have ended.

What a run prints goes to output.txt in its directory. That file is locked from before the process
starts until its end is noted, by this process and by the one that it starts: so two sweeps never
train one point at once, and a point of a sweep that was killed is held until its process has left.
"""

import collections
import contextlib
import dataclasses
import pathlib
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any

from trainer.run_dir import directory, result
from trainer.sweep import hparams, outcomes
from trainer.sweep.grid import Point, folder, shown
from trainer.sweep.outcomes import Outcome
from trainer.system import child_process, file_lock, stop_signals
from trainer.system.cores import split_cores
from trainer.system.regular_file import opener
from trainer.system.typed_json import DamagedError, problem

_SAYS = "crescendo train: "
_LONGEST_REASON = 65536  # bytes of output in which it is looked for
_LONGEST_LINE = 1000  # letters: sweep.json holds a reason for every failed point


@dataclasses.dataclass(frozen=True)
class Run:
    """A point of a sweep.

    Attributes:
      point: the values of the swept flags.
      flags: all that `train` is given, --model_dir among it.
      title: what lines about it begin with.
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
    begin: int  # of its output in the file
    signals: int = 0


def run_sweep(
    runs: Sequence[Run],
    sweep: pathlib.Path,
    *,
    parallel: int,
    retry: bool,
    say: Callable[[str], None],
) -> bool:
    """Trains what is not finished of `runs`, in the folder `sweep`, `parallel` at once.

    What has failed before is left alone, unless `retry`. A signal goes on to the processes, which
    checkpoint; returns whether one came. What cannot be written is said, and left for another call.
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
                _end(ended, sweep, say)
            for _ in range(len(waiting)):
                if not free or received:
                    break
                run = waiting.popleft()
                try:
                    output = _hold(sweep / folder(run.point))
                    if output is None:
                        waiting.append(run)
                        if run.title not in held:
                            say(f"{run.title}: another process has it, and is waited for")
                        held.add(run.title)
                    elif attempt := _start(run, sweep, output, free[0], retry, say):
                        running.append(attempt)
                        del free[0]
                except OSError as error:
                    what = f"{error.filename} cannot be written" if error.filename else "no process"
                    say(f"{run.title}: {what}: {error.strerror}")
            for each in running:
                for _ in range(len(received) - each.signals):
                    each.process.terminate()
                each.signals = len(received)
            time.sleep(0.1)
        return bool(received)


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """The signals that ask to stop, as they come."""
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
    """The output of the run in `path`, locked; None where another process has locked it."""
    path.mkdir(parents=True, exist_ok=True)
    output = open(path / directory.OUTPUT, "a+b", buffering=0, opener=opener)  # noqa: SIM115
    if not file_lock.take(output):
        _close(output)
        return None
    output.seek(0, 2)
    return output


def _close(output: IO[bytes]) -> None:
    with contextlib.suppress(OSError):  # What is lost is a line of a run's output.
        output.close()


def _start(
    run: Run,
    sweep: pathlib.Path,
    output: IO[bytes],
    cores: set[int],
    retry: bool,
    say: Callable[[str], None],
) -> _Attempt | None:
    """The process that trains `run`; None, and `output` closed, where there is nothing to train."""
    ended = _result(run, sweep, say)
    last = _last(run, sweep)
    if ended and last.status != 0:  # By a sweep that was killed before it could note the end.
        say(_line(run, Outcome(0), ended))
        _note(run, sweep, Outcome(0), ended, say)
    elif last.failed and not ended and not retry:
        say(f"{run.title}: failed before, with status {last.status}; --sweep_retry tries it again")
    elif not ended:
        say(f"{run.title}: {'goes on' if _begun(sweep / folder(run.point)) else 'starts'}")
        begin = output.tell()
        process = child_process.start(["train", *run.flags], cores, output)
        return _Attempt(run, process, cores, output, begin)
    _close(output)
    return None


def _result(run: Run, sweep: pathlib.Path, say: Callable[[str], None]) -> dict[str, Any] | None:
    """How the run has ended; None, too, if that is damaged: `train` then says what to do."""
    path = sweep / folder(run.point)
    try:
        return result.read(path)
    except (DamagedError, OSError) as error:
        say(f"{run.title}: {path / result.FILE} {problem(error)}")
        return None


def _last(run: Run, sweep: pathlib.Path) -> Outcome:
    """How the last attempt ended; unknown if sweep.json is damaged, which the next note says."""
    try:
        return outcomes.read(sweep).get(folder(run.point), Outcome())
    except (DamagedError, OSError):
        return Outcome()


def _begun(path: pathlib.Path) -> bool:
    return any((path / "checkpoints").glob("0*"))


def _end(attempt: _Attempt, sweep: pathlib.Path, say: Callable[[str], None]) -> None:
    """Notes and says how an attempt has ended, and lets go of the point."""
    code = attempt.process.returncode
    if code < 0:
        end = Outcome(128 - code, f"killed by {signal.Signals(-code).name}")
    else:
        end = Outcome(code, _reason(attempt.output, attempt.begin) if code else None)
    ended = _result(attempt.run, sweep, say)
    say(_line(attempt.run, end, ended))
    try:
        _note(attempt.run, sweep, end, ended, say)
    except OSError as error:
        say(f"{attempt.run.title}: {error.filename} cannot be written: {error.strerror}")
    _close(attempt.output)


def _note(
    run: Run,
    sweep: pathlib.Path,
    end: Outcome,
    ended: dict[str, Any] | None,
    say: Callable[[str], None],
) -> None:
    """Keeps how an attempt has ended, and shows it to TensorBoard where that is for good."""
    if ended or end.failed:
        numbers = {name: ended[name] for name in result.RESULTS} if ended else None
        flags = {name: shown(name, value) for name, value in run.point.items()}
        hparams.write(sweep / folder(run.point), flags, numbers)
    outcomes.record_outcome(sweep, run.point, end, say)


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
    """The last lines that an attempt printed: two, from where it says what is wrong if it does."""
    output.seek(max(begin, output.seek(0, 2) - _LONGEST_REASON))
    lines = output.read().decode(errors="replace").splitlines()
    lines = [line.rstrip()[:_LONGEST_LINE] for line in lines if line.strip()]
    said = [i for i, line in enumerate(lines) if line.startswith(_SAYS)]
    return "\n".join(lines[said[-1] :][:2] if said else lines[-2:]).removeprefix(_SAYS)
