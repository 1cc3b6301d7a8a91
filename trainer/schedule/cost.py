"""How long a run takes on n replicas over h hosts: where larger batches stop paying.

The replicas compute their shares of a batch side by side, and then the hosts sum what they have,
once an update and behind its last micro-batch, so that the times add up:

    update = fixed + B / n · example + all-reduce

The all-reduce goes around a ring (Patarasuk & Yuan 2009): in each of 2 (h - 1) steps every host
sends 1/h of the numbers to the next one. It costs the same whatever B is; an example's part of it
falls as 1/B. Replicas of one host share its link; what they sum among themselves counts as nothing.
"""

import dataclasses
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence

from trainer.schedule.plan import Phase

_NUMBER_BYTES = 4  # float32, whatever --precision is
# Of an update that is not examples: from there on, a larger batch saves less than this.
_LITTLE = 0.1


@dataclasses.dataclass(frozen=True)
class Compute:
    """What updates take on one host: `fixed` seconds, and `example` seconds for each one that a
    replica takes."""

    example: float
    fixed: float = 0.0


@dataclasses.dataclass(frozen=True)
class Machines:
    """What a run is laid out on.

    Attributes:
      replicas: of all hosts.
      hosts: that share the replicas out evenly.
      compute: the time of an update on one host.
      bytes_sent: by each host in an update.
      communication: seconds of an update's all-reduce.
    """

    replicas: int
    hosts: int
    compute: Compute
    bytes_sent: float
    communication: float


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a phase takes; the field names are those of plan's JSON.

    Attributes:
      update_seconds: of one update.
      communication_share: of that, from 0 to 1.
      bytes_per_example: that each host sends.
      seconds: of the phase.
    """

    update_seconds: float
    communication_share: float
    bytes_per_example: float
    seconds: float


def machines(
    *,
    replicas: int,
    hosts: int,
    compute: Compute,
    parameters: int,
    bandwidth: float,
    latency: float,
) -> Machines:
    """The machines whose link sends `bandwidth` gigabits a second and takes `latency` microseconds
    a step, for a model of so many parameters, moving statistics included."""
    steps = 2 * (hosts - 1)
    sent = steps / hosts * parameters * _NUMBER_BYTES
    seconds = sent * 8 / (bandwidth * 1e9) + steps * latency / 1e6
    return Machines(replicas, hosts, compute, sent, seconds)


def medians(points: Iterable[Mapping[str, float]]) -> dict[int, float]:
    """Batch size → seconds of an update, the median of a run's logged train points.

    A median, because the first point of a run has what TensorFlow does once. A point that lacks
    one of the two, as one from elsewhere may, does not count.
    """
    seconds: dict[int, list[float]] = {}
    for point in points:
        size, rate = int(point.get("batch_size", 0)), point.get("examples_per_second", 0.0)
        if size and 0 < rate < math.inf:
            seconds.setdefault(size, []).append(size / rate)
    return {size: statistics.median(found) for size, found in sorted(seconds.items())}


def measured(update_seconds: Mapping[int, float], replicas: int) -> Compute:
    """What a run on `replicas` of one host says: the line through its smallest and largest batch.

    Of a run of one batch size, all is taken for the examples'.
    """
    small, large = min(update_seconds), max(update_seconds)
    first, last = update_seconds[small], update_seconds[large]
    slope = (last - first) / (large - small) if large > small else first / small
    # Noise may tilt the line, and neither part is below 0.
    fixed = min(max(0.0, first - slope * small), first, last)
    return Compute((last - fixed) / large * replicas, fixed)


def update_seconds(on: Machines, batch_size: int) -> float:
    """Of an update of `batch_size` examples over all replicas."""
    return on.compute.fixed + batch_size / on.replicas * on.compute.example + on.communication


def phase_cost(phase: Phase, on: Machines) -> Cost:
    """What `phase` takes."""
    seconds = update_seconds(on, phase.batch_size)
    return Cost(
        update_seconds=seconds,
        communication_share=on.communication / seconds,
        bytes_per_example=on.bytes_sent / phase.batch_size,
        seconds=phase.updates * seconds,
    )


def efficiency(phases: Sequence[Phase], on: Machines) -> float:
    """The time of one replica over n times the time of n, for the same updates."""
    one = dataclasses.replace(on, replicas=1, hosts=1, bytes_sent=0.0, communication=0.0)
    return total(phases, one) / total(phases, on) / on.replicas


def total(phases: Sequence[Phase], on: Machines) -> float:
    """Seconds of all updates."""
    return sum(phase_cost(phase, on).seconds for phase in phases)


def whole(phases: Sequence[Phase], on: Machines) -> dict[str, float]:
    """Of the whole run, what plan's JSON has at its top."""
    return {
        "replicas": on.replicas,
        "hosts": on.hosts,
        "seconds": total(phases, on),
        "efficiency": efficiency(phases, on),
        "half_communication_batch_size": half_communication(on),
        "largest_paying_batch_size": largest_paying(on),
    }


def half_communication(on: Machines) -> int:
    """The batch size below which more than half of an update is communication; 0: none is."""
    return _batch_size(on, on.communication - on.compute.fixed)


def largest_paying(on: Machines) -> int:
    """The batch size from which a larger one saves less than a tenth of the time; 0: any is."""
    return _batch_size(on, (1 / _LITTLE - 1) * (on.communication + on.compute.fixed))


def _batch_size(on: Machines, seconds: float) -> int:
    """Whose examples take so many seconds; 0 where none do."""
    if seconds <= 0 or not on.compute.example:
        return 0
    return math.ceil(seconds / on.compute.example * on.replicas * (1 - 1e-9))  # But for rounding.


def columns(on: Machines, examples: int) -> dict[str, Callable[[Phase], str]]:
    """Of plan's table: what a phase's updates take, for a run over `examples`."""

    def epochs_an_hour(phase: Phase) -> float:
        return 3600 * phase.batch_size / update_seconds(on, phase.batch_size) / examples

    return {
        "update takes": lambda phase: duration(phase_cost(phase, on).update_seconds),
        "communication": lambda phase: f"{phase_cost(phase, on).communication_share:.1%}",
        "bytes an example": lambda phase: f"{phase_cost(phase, on).bytes_per_example:,.0f}",
        "epochs an hour": lambda phase: f"{epochs_an_hour(phase):.4g}",
    }


def summary(phases: Sequence[Phase], on: Machines) -> str:
    """How long the run takes, and which batch sizes pay."""
    share = efficiency(phases, on)
    replicas = f"{on.replicas} replicas" if on.replicas > 1 else "one replica"
    over = f" over {on.hosts} hosts" if on.hosts > 1 else ""
    text = (
        f"{duration(total(phases, on))} on {replicas}{over}, "
        f"evaluations apart: {share * on.replicas:.3g} × the speed of one, efficiency {share:.0%}"
    )
    if (size := half_communication(on)) > min(phase.batch_size for phase in phases):
        text += f"\nbelow a batch of {size:,}, more than half of an update is communication"
    if size := largest_paying(on):
        text += (
            f"\nabove a batch of {size:,}, a larger one saves less than {_LITTLE:.0%} of the time"
        )
    return text


def duration(seconds: float) -> str:
    """Three digits of it, in the unit that suits."""
    for unit, name in ((3600, "h"), (60, "min"), (1, "s")):
        if seconds >= unit:
            return f"{seconds / unit:.3g} {name}"
    return f"{1000 * seconds:.3g} ms"
