"""How benchmarks compare: every competitor is a process that is built once and then waits its turn.

A round gives each of them its turn, from another one on each time, so that a machine that slows
down slows all alike. A turn is a line on the competitor's standard input, the amount of work, and a
line of JSON on its standard output, with the seconds it took at the least. Both sides are here, for
any environment: this file imports nothing but Python's own.
"""

import contextlib
import dataclasses
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable

# PyTorch's threads spin for a while when their work is done.
PAUSE_SECONDS = 0.3

Answer = dict[str, float]


@dataclasses.dataclass
class Worker:
    """A competitor's process. A turn's work is `amount`, in its own unit, on so many images."""

    name: str
    process: subprocess.Popen[str]
    amount: int
    images: int
    answers: list[Answer] = dataclasses.field(default_factory=list)

    def round(self) -> None:
        """One turn; a worker that has died stays out."""
        try:
            assert self.process.stdin
            assert self.process.stdout
            self.process.stdin.write(f"{self.amount}\n")
            self.process.stdin.flush()
            self.answers.append(json.loads(self.process.stdout.readline()))
        except (BrokenPipeError, json.JSONDecodeError):
            self.answers.clear()

    def rates(self) -> list[float]:
        """Images a second, by round."""
        return [self.images / answer["seconds"] for answer in self.answers]

    def median(self, name: str) -> float:
        """Of a number that every answer has."""
        return statistics.median(answer[name] for answer in self.answers)

    def behind(self, other: "Worker", name: str = "seconds") -> float:
        """How many times as fast `other` is: the median of the ratios within a round."""
        if not other.answers:
            return math.nan
        return statistics.median(
            (ours[name] / self.images) / (theirs[name] / other.images)
            for ours, theirs in zip(self.answers, other.answers, strict=True)
        )


def start(name: str, command: Iterable[object], amount: int, images: int) -> Worker:
    """Starts a competitor, which says so when it is built and warm."""
    process = subprocess.Popen(
        [str(part) for part in command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    return Worker(name, process, amount, images)


def take_turns(workers: list[Worker], rounds: int) -> None:
    """Fills the workers' answers, and ends their processes."""
    try:
        for worker in workers:
            assert worker.process.stdout
            worker.process.stdout.readline()
        for first in range(rounds):
            for turn in range(len(workers)):
                workers[(first + turn) % len(workers)].round()
                time.sleep(PAUSE_SECONDS)
    finally:
        for worker in workers:
            assert worker.process.stdin
            with contextlib.suppress(BrokenPipeError):  # What one that died has not read.
                worker.process.stdin.close()
            worker.process.wait()


def serve(turn: Callable[[int], Answer]) -> None:
    """The competitor's side: answers turns until standard input closes."""
    print("{}", flush=True)
    for line in sys.stdin:
        print(json.dumps(turn(int(line))), flush=True)
