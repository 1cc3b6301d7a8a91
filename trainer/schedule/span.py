"""Spans: updates of one batch size that are counted at once, by `plan` and by `train` alike."""

import dataclasses
import math
from collections.abc import Iterator

from trainer.schedule.noise_scale import Setting
from trainer.schedule.trajectory import Trajectory


@dataclasses.dataclass(frozen=True)
class Span:
    """Consecutive updates of one batch size, between two turns of the schedule.

    Attributes:
      position: of the first update.
      updates: how many.
      first: the Setting of the first update.
      flat: whether all have this Setting; otherwise learning rate or momentum moves steadily.
    """

    position: int
    updates: int
    first: Setting
    flat: bool

    @property
    def end(self) -> int:
        """The position behind the last update."""
        return self.position + self.updates * self.first.batch_size

    def position_of(self, update: int) -> int:
        """The position of one of the updates, counted from 0."""
        return self.position + update * self.first.batch_size


def spans(trajectory: Trajectory) -> Iterator[Span]:
    """All updates of the run."""
    position = 0
    while position < trajectory.end:
        span = next_span(trajectory, position, trajectory.end)
        yield span
        position = span.end


def next_span(trajectory: Trajectory, position: int, until: int) -> Span:
    """The updates from `position` on, to the first that ends at or after position `until` at most.

    The number of evaluations of the schedule grows with the logarithm of the number of updates.
    """
    epochs = position / trajectory.examples
    setting = trajectory.at(position)
    updates = _updates_before(trajectory, position, setting.batch_size, until)
    flat = all(curve.is_flat(epochs) for curve in trajectory.curves)
    if not flat:
        updates = _updates_of_one_size(trajectory, position, setting.batch_size, updates)
    return Span(position, updates, setting, flat or updates == 1)


def _updates_before(trajectory: Trajectory, position: int, size: int, until: int) -> int:
    """How many updates start before the next turn, and before `until`; at least 1."""
    most = -(-(until - position) // size)
    epochs = position / trajectory.examples
    turn = min(curve.next_turn(epochs) for curve in trajectory.curves)
    if turn == math.inf:
        return max(1, most)
    before = math.floor((turn * trajectory.examples - position) / size)
    # Floats may be off by one: the schedule compares epochs, so what it says counts.
    before = max(before, 0)
    while before < most and (position + before * size) / trajectory.examples < turn:
        before += 1
    while before > 1 and (position + (before - 1) * size) / trajectory.examples >= turn:
        before -= 1
    return max(1, min(before, most))


def _updates_of_one_size(trajectory: Trajectory, position: int, size: int, most: int) -> int:
    """How many of `most` updates have the first one's batch size, which then moves one way.

    Steps of 1, 2, 4, … pass the last of them, and bisection finds it.
    """
    if not trajectory.batch_moves:
        return most
    if not trajectory.batch_moves_one_way(position / trajectory.examples):
        return 1

    def same(update: int) -> bool:
        return trajectory.at(position + update * size).batch_size == size

    low, step = 0, 1
    while low + step < most and same(low + step):
        low, step = low + step, 2 * step
    high = min(low + step, most)  # The first of another size, or `most`.
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if same(middle) else (low, middle)
    return low + 1
