"""Cost of a run on n replicas over h hosts: its duration, and the batch sizes that shorten it.

The replicas compute their parts of a batch of B examples in parallel. Once per update, the hosts
all-reduce the gradients and the batch-norm statistics. So the seconds of an update are

    fixed + B / n · example + communication

Here, `fixed` does not depend on B, `example` is the time of a replica for one example, and
`communication` is the time of the all-reduce. The all-reduce uses a ring (Patarasuk & Yuan 2009):
in each of 2 (h - 1) steps, every host sends 1/h of the values to the next host. `communication`
does not depend on B, so its time per example falls as 1/B. The replicas of a host share one network
link. The formula neglects the time to sum the gradients within a host.
"""

import dataclasses
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence

from trainer.schedule.plan import Phase

# A larger batch pays if it could save more than this fraction of the time. It could save at most
# the time for communication and the fixed time of the updates.
_SMALLEST_SAVING = 0.1


@dataclasses.dataclass(frozen=True)
class Compute:
    """Time of an update without communication."""

    example: float  # Seconds that a replica needs for an example.
    fixed: float = 0.0  # Seconds of an update that do not depend on its batch size.


@dataclasses.dataclass(frozen=True)
class Machines:
    """Hosts and replicas of a run, and their speed; each host has the same number of replicas."""

    replicas: int  # Number of replicas on all hosts together.
    hosts: int
    compute: Compute
    parameters: int  # Values in the model, moving statistics included.
    bandwidth: float  # Gigabits per second that each host can send.
    latency: float  # Microseconds that a step of the ring takes in addition to sending.
    # Side in pixels of the images that `compute` describes; None if the side does not change during
    # the run. The time of an example is assumed to be proportional to its number of pixels.
    image_size: int | None = None

    @property
    def bytes_sent(self) -> float:
        """Bytes that each host sends for an update."""
        # The hosts sum float32 values, of 4 bytes each, at every --precision.
        return 2 * (self.hosts - 1) / self.hosts * self.parameters * 4

    @property
    def communication(self) -> float:
        """Seconds of the all-reduce of an update."""
        seconds = self.bytes_sent * 8 / (self.bandwidth * 1e9)
        return seconds + 2 * (self.hosts - 1) * self.latency / 1e6


@dataclasses.dataclass(frozen=True)
class Cost:
    """Cost of a phase (plan.py); the command `plan` prints the fields as JSON, with these names."""

    update_seconds: float
    communication_share: float  # Fraction of `update_seconds` that the all-reduce takes.
    bytes_per_example: float  # Bytes that each host sends for an update, divided by B.
    seconds: float  # Duration of the phase.


def medians(points: Iterable[Mapping[str, float]]) -> dict[int, float]:
    """Returns the median seconds of an update for each batch size of a run.

    `points` are the training points of the run's metrics.jsonl. The first update takes longer, but
    it hardly changes the median. The function leaves out points without a batch size or a
    throughput, which another program may have written. It also leaves out points whose image size
    differs from the last point's image size.
    """
    seconds: dict[int, list[float]] = {}
    found = list(points)
    last = found[-1].get("image_size") if found else None
    for point in found:
        if point.get("image_size") != last:
            continue
        size, rate = int(point.get("batch_size", 0)), point.get("examples_per_second", 0.0)
        if size and 0 < rate < math.inf:
            seconds.setdefault(size, []).append(size / rate)
    return {size: statistics.median(times) for size, times in sorted(seconds.items())}


def measured(update_seconds: Mapping[int, float], replicas: int) -> Compute:
    """Returns the Compute of a run, measured on `replicas` replicas of one host.

    `update_seconds` maps batch sizes to the seconds of an update. A line through the times of the
    smallest and the largest batch gives `example` and `fixed`. If the run has only one batch size,
    or the largest batch did not take longer, the time of the largest batch is all of its examples,
    and `fixed` is 0.
    """
    small, large = min(update_seconds), max(update_seconds)
    first, last = update_seconds[small], update_seconds[large]
    if last <= first:  # Noise hides the time of the examples; at 0, no replica would help.
        return Compute(last / large * replicas)
    slope = (last - first) / (large - small)
    fixed = max(0.0, first - slope * small)  # Noisy times may make the line negative at 0.
    return Compute((last - fixed) / large * replicas, fixed)


def update_seconds(on: Machines, batch_size: int, image_size: int | None = None) -> float:
    """Returns the seconds of an update of `batch_size` examples over all replicas.

    `image_size` is the side of the images in pixels. If it is None, the images have the side that
    `on.compute` describes.
    """
    pixels = (image_size / on.image_size) ** 2 if image_size and on.image_size else 1.0
    examples = batch_size / on.replicas * on.compute.example * pixels
    return on.compute.fixed + examples + on.communication


def phase_cost(phase: Phase, on: Machines) -> Cost:
    """Returns the cost of `phase` on the machines `on`."""
    seconds = update_seconds(on, phase.batch_size, phase.image_size)
    return Cost(
        update_seconds=seconds,
        communication_share=on.communication / seconds,
        bytes_per_example=on.bytes_sent / phase.batch_size,
        seconds=phase.updates * seconds,
    )


def efficiency(phases: Sequence[Phase], on: Machines) -> float:
    """Returns T₁ / (n Tₙ); T₁ and Tₙ are the durations of all phases on one and on n replicas."""
    one = dataclasses.replace(on, replicas=1, hosts=1)
    return total(phases, one) / total(phases, on) / on.replicas


def total(phases: Sequence[Phase], on: Machines) -> float:
    """Returns the duration of all phases together, in seconds."""
    return sum(phase_cost(phase, on).seconds for phase in phases)


def whole(phases: Sequence[Phase], on: Machines) -> dict[str, float]:
    """Returns the cost of the whole run, as the top-level entries of plan's JSON."""
    return {
        "replicas": on.replicas,
        "hosts": on.hosts,
        "seconds": total(phases, on),
        "efficiency": efficiency(phases, on),
        "half_communication_batch_size": half_communication(on),
        "largest_paying_batch_size": largest_paying(on),
    }


def half_communication(on: Machines) -> int:
    """Returns the batch size below which communication takes more than half of an update's time.

    Returns 0 if communication takes less than half of the time at every batch size.
    """
    return _batch_size(on, on.communication - on.compute.fixed)


def largest_paying(on: Machines) -> int:
    """Returns the batch size above which a larger batch saves less than a tenth of the time.

    Returns 0 if a larger batch saves less than a tenth at every batch size.
    """
    return _batch_size(on, (1 / _SMALLEST_SAVING - 1) * (on.communication + on.compute.fixed))


def _batch_size(on: Machines, seconds: float) -> int:
    """Returns the batch size at which the examples take `seconds`, rounded up, or 0."""
    if seconds <= 0:
        return 0
    # Without the factor 1 − 10⁻⁹, a rounding error could add an example.
    return math.ceil(seconds / on.compute.example * on.replicas * (1 - 1e-9))


def fastest_host(phases: Sequence[Phase], on: Machines) -> tuple[Phase, float]:
    """Returns the phase in which a host trains on the most examples per second, and that rate."""

    def rate(phase: Phase) -> float:
        return phase.batch_size / phase_cost(phase, on).update_seconds / on.hosts

    fastest = max(phases, key=rate)
    return fastest, rate(fastest)


def columns(on: Machines, examples: int) -> dict[str, Callable[[Phase], str]]:
    """Returns the cost columns of plan's table, by header, for `examples` training examples."""

    def epochs_an_hour(phase: Phase) -> float:
        seconds = update_seconds(on, phase.batch_size, phase.image_size)
        return 3600 * phase.batch_size / seconds / examples

    return {
        "update takes": lambda phase: duration(phase_cost(phase, on).update_seconds),
        "communication": lambda phase: f"{phase_cost(phase, on).communication_share:.1%}",
        "bytes an example": lambda phase: f"{phase_cost(phase, on).bytes_per_example:,.0f}",
        "epochs an hour": lambda phase: f"{epochs_an_hour(phase):.4g}",
    }


def summary(phases: Sequence[Phase], on: Machines) -> str:
    """Returns lines of text: how long the run takes, and which batch sizes pay."""
    share = efficiency(phases, on)
    replicas = f"{on.replicas} replicas" if on.replicas > 1 else "one replica"
    over = f" over {on.hosts} hosts" if on.hosts > 1 else ""
    lines = [
        f"{duration(total(phases, on))} on {replicas}{over}, "
        f"without evaluations: {share * on.replicas:.3g} × the speed of one replica, "
        f"efficiency {share:.0%}"
    ]
    if (size := half_communication(on)) > min(phase.batch_size for phase in phases):
        lines.append(f"below a batch of {size:,}, more than half of an update is communication")
    if size := largest_paying(on):
        saved = f"less than {_SMALLEST_SAVING:.0%} of the time"
        lines.append(f"above a batch of {size:,}, a larger batch saves {saved}")
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """Returns `seconds` as text with three digits, in hours, minutes, seconds or milliseconds."""
    for unit, name in ((3600, "h"), (60, "min"), (1, "s")):
        if seconds >= unit:
            return f"{seconds / unit:.3g} {name}"
    return f"{1000 * seconds:.3g} ms"
