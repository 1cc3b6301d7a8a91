"""Compares competitors in turns: each is a process that prepares once, and then waits for its turn.

A round gives each competitor one turn. Each round starts with another competitor, so that a change
of the machine's speed affects all equally. For a turn, a competitor reads a line with the amount of
work, and writes a line of JSON with at least the seconds that the work took. This file has both
sides. It imports only Python's standard library, so that it works in every environment.
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
    """A competitor's process; a turn is `amount` updates or batches, `images` images in all."""

    name: str
    process: subprocess.Popen[str]
    amount: int
    images: int
    answers: list[Answer] = dataclasses.field(default_factory=list)

    def round(self) -> None:
        """Gives the worker one turn; a worker that has died loses all its answers."""
        try:
            assert self.process.stdin
            assert self.process.stdout
            self.process.stdin.write(f"{self.amount}\n")
            self.process.stdin.flush()
            self.answers.append(json.loads(self.process.stdout.readline()))
        except (BrokenPipeError, json.JSONDecodeError):
            self.answers.clear()

    def rates(self) -> list[float]:
        """Returns the images a second in each round."""
        return [self.images / answer["seconds"] for answer in self.answers]

    def median(self, name: str) -> float:
        """Returns the median over the rounds of the answers' number `name`."""
        return statistics.median(answer[name] for answer in self.answers)

    def behind(self, other: "Worker", name: str = "seconds") -> float:
        """Returns the speed of `other` divided by this worker's, as a median over the rounds."""
        if not other.answers:
            return math.nan
        return statistics.median(
            (own[name] / self.images) / (others[name] / other.images)
            for own, others in zip(self.answers, other.answers, strict=True)
        )


def start(name: str, command: Iterable[object], amount: int, images: int) -> Worker:
    """Starts a competitor, which prints a line when it is ready for its first turn."""
    process = subprocess.Popen(
        [str(part) for part in command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    return Worker(name, process, amount, images)


def take_turns(workers: list[Worker], rounds: int) -> None:
    """Collects the workers' answers over all rounds, and ends their processes."""
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
            with contextlib.suppress(BrokenPipeError):  # A dead worker left its input unread.
                worker.process.stdin.close()
            worker.process.wait()


def serve(turn: Callable[[int], Answer]) -> None:
    """Answers turns until standard input closes: the competitor's side."""
    print("{}", flush=True)
    for line in sys.stdin:
        print(json.dumps(turn(int(line))), flush=True)
