"""Number of workers that each phase of a run should have, by the cost model of cost.py.

A small batch gives many workers too little to do, and a large batch shortens its updates on more
workers. So the best number of workers changes during a run whose batch grows. A change costs a
checkpoint, and a start of the workers up to their next update.

The number w of workers is allowed in a phase of batch size B if w × replicas of a worker × g
divides B, where g is the ghost batch size, or the micro-batch size if the run may not change it. It
pays if its efficiency T₁ / (w T_w) is high enough, where T₁ and T_w are the times of an update on
one and on w workers. Among the numbers that are allowed and pay, the choice has the shortest
duration of the whole run, changes included. The sequence of batch sizes never depends on the number
of workers.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from trainer.config import number_range
from trainer.config.flags import Config
from trainer.errors import UserError
from trainer.schedule import cost, trajectory
from trainer.schedule.cost import Machines
from trainer.schedule.plan import Phase
from trainer.schedule.trajectory import Trajectory
from trainer.system.output import aligned


@dataclasses.dataclass(frozen=True)
class Duration:
    """Duration of a run, in seconds, and the sum of the durations of its workers."""

    seconds: float
    worker_seconds: float

    def as_json(self) -> dict[str, float]:
        """Returns the entries of plan's JSON."""
        return {"seconds": self.seconds, "worker_hours": self.worker_seconds / 3600}


@dataclasses.dataclass(frozen=True)
class Choice:
    """Number of workers in each phase.

    Attributes:
      phases: phases of the run.
      workers: number of workers of each phase.
      duration: duration with these numbers and the changes between the phases.
      fixed: duration with each number of workers that is allowed in all phases, by number.
    """

    phases: Sequence[Phase]
    workers: Sequence[int]
    duration: Duration
    fixed: Mapping[int, Duration]

    def as_json(self) -> dict[str, Any]:
        """Returns the entry `workers` of plan's JSON."""
        series = [
            {"start_epoch": phase.start_epoch, "start_update": phase.start_update, "workers": w}
            for phase, w in self.changes()
        ]
        fixed = {str(w): each.as_json() for w, each in self.fixed.items()}
        return {"phases": series, **self.duration.as_json(), "fixed": fixed}

    def changes(self) -> list[tuple[Phase, int]]:
        """Returns the first phase of each number of workers, with this number."""
        found: list[tuple[Phase, int]] = []
        for phase, workers in zip(self.phases, self.workers, strict=True):
            if not found or found[-1][1] != workers:
                found.append((phase, workers))
        return found

    def text(self) -> str:
        """Returns a table of the changes, and of the durations with fixed numbers."""
        header = ("epoch", "update", "batch", "workers")
        rows = [
            (f"{phase.start_epoch:.2f}", str(phase.start_update), str(phase.batch_size), str(w))
            for phase, w in self.changes()
        ]
        lines = aligned([header, *rows])
        lines += aligned(
            [
                ("workers", "duration", "worker-hours"),
                ("as above", *_shown(self.duration)),
                *((f"always {w}", *_shown(each)) for w, each in self.fixed.items()),
            ]
        )
        return "\n".join(lines)


def _shown(duration: Duration) -> tuple[str, str]:
    return cost.duration(duration.seconds), f"{duration.worker_seconds / 3600:.3g}"


def choose(
    phases: Sequence[Phase],
    on: Machines,
    counts: range,
    *,
    unit: int,
    min_efficiency: float,
    change_seconds: float,
    current: int | None = None,
) -> Choice:
    """Returns the number of workers of each phase with the shortest duration of all phases.

    If no allowed number of a phase is efficient enough, the smallest allowed number is taken.

    Args:
      phases: phases of the run, each with one batch size.
      on: one worker: its replicas and its speed.
      counts: numbers of workers that may be chosen.
      unit: the examples of each replica in a batch must be a multiple of this number.
      min_efficiency: least efficiency of a number of workers above the smallest one, as a fraction.
      change_seconds: duration of a change of the number of workers.
      current: number of workers before the first phase; None: the run starts with this phase, so
        its number is not a change.

    Raises:
      UserError: if no number in `counts` is allowed in a phase.
    """
    allowed = [_numbers_that_share(phase.batch_size, on.replicas, counts, unit) for phase in phases]
    paying = [
        [w for w in found if w == found[0] or _efficiency(phase, on, w) >= min_efficiency]
        for phase, found in zip(phases, allowed, strict=True)
    ]
    workers = _shortest(phases, on, paying, change_seconds, current)
    fixed = {
        w: _duration(phases, on, [w] * len(phases), change_seconds)
        for w in counts
        if all(w in found for found in allowed)
    }
    return Choice(phases, workers, _duration(phases, on, workers, change_seconds), fixed)


def can_share(batch_size: int, workers: int, replicas: int, unit: int) -> bool:
    """Returns whether workers of `replicas` each can share a batch; `unit` is as in `choose`."""
    return batch_size % (workers * replicas * unit) == 0


def schedule_of(config: Config, examples: int, replicas: int, workers: int) -> Trajectory:
    """Returns the trajectory of a run that begins on `workers` workers of `replicas` in all.

    With --workers, the workers of one batch need not be able to share the batches of others.

    Raises:
      UserError: as trajectory.from_config. Also if no number in --workers can share the smallest
        or the largest batch. All batches but the largest are multiples of the smallest.
    """
    if config.workers is None:
        return trajectory.from_config(config, examples, replicas)
    each, numbers = replicas // workers, number_range.parse(config.workers).numbers()
    found = trajectory.from_config(config, examples, each)
    for size in (found.limits.smallest, found.limits.largest):
        _numbers_that_share(size, each, numbers, found.micro_batch_size or config.ghost_batch_size)
    return found


def machines(on: Machines, workers: int) -> Machines:
    return dataclasses.replace(on, hosts=workers, replicas=workers * on.replicas)


def _seconds(phase: Phase, on: Machines, workers: int) -> float:
    return cost.phase_cost(phase, machines(on, workers)).seconds


def _efficiency(phase: Phase, on: Machines, workers: int) -> float:
    return _seconds(phase, on, 1) / _seconds(phase, on, workers) / workers


def _numbers_that_share(batch_size: int, replicas: int, counts: range, unit: int) -> list[int]:
    """Returns the numbers in `counts` that can share a batch; raises a UserError if none can."""
    found = [w for w in counts if can_share(batch_size, w, replicas, unit)]
    if not found:
        numbers = f"{counts.start}:{counts.stop - 1}"
        each = f"{replicas} replicas each" if replicas > 1 else "one replica each"
        raise UserError(
            f"--workers={numbers} has no number of workers, of {each}, that can share a batch of "
            f"{batch_size}: the number × {replicas * unit} must divide it.\n"
            "Use a wider --workers, a smaller --ghost_batch_size or --micro_batch_size, or other "
            "batch sizes (--initial_batch_size, --max_batch_size)."
        )
    return found


def _shortest(
    phases: Sequence[Phase],
    on: Machines,
    choices: Sequence[Sequence[int]],
    change: float,
    current: int | None,
) -> list[int]:
    """Returns one of `choices` for each phase, by dynamic programming over the phases.

    Of two equally long runs, the one with fewer workers is taken.
    """
    # Maps a number of workers to the shortest duration up to a phase that ends with this number,
    # and to the number before it, for each phase.
    best: dict[int, float] = {} if current is None else {current: 0.0}
    before: list[dict[int, int]] = []
    for phase, numbers in zip(phases, choices, strict=True):
        reached: dict[int, float] = {}
        came: dict[int, int] = {}
        for w in numbers:
            from_w = {old: time + (change if old != w else 0) for old, time in best.items()}
            came[w] = min(from_w, key=lambda old: (from_w[old], old)) if from_w else w
            reached[w] = from_w.get(came[w], 0.0) + _seconds(phase, on, w)
        best = reached
        before.append(came)
    last = min(best, key=lambda w: (best[w], w))
    found = [last]
    for came in reversed(before[1:]):
        found.append(came[found[-1]])
    return found[::-1]


def _duration(
    phases: Sequence[Phase], on: Machines, workers: Sequence[int], change: float
) -> Duration:
    """Returns the duration with these workers.

    During a change, as many workers wait as train after it. No change precedes the first phase.
    """
    seconds = worker_seconds = 0.0
    for index, (phase, w) in enumerate(zip(phases, workers, strict=True)):
        added = _seconds(phase, on, w)
        if index and workers[index - 1] != w:
            added += change
        seconds += added
        worker_seconds += added * w
    return Duration(seconds, worker_seconds)
