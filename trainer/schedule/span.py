"""Spans: consecutive updates of one batch size and one image size.

A position is the number of training examples that the run has consumed. At each position, the
trajectory gives a Setting: the batch size, learning rate and momentum of an update (trajectory.py).
"""

import dataclasses
import math
from collections.abc import Iterator

from trainer.schedule.noise_scale import Setting
from trainer.schedule.trajectory import Trajectory


@dataclasses.dataclass(frozen=True)
class Span:
    """Consecutive updates of one batch size, without a turn of a curve between the updates.

    At a turn, a curve of the trajectory may jump or change direction (`Curve.next_turn`).
    """

    position: int  # Position of the first update.
    updates: int
    first: Setting
    flat: bool  # True if all updates are known to have the Setting `first`.
    image_size: int | None = None  # Side of the images, in pixels, if it changes during the run.

    @property
    def end(self) -> int:
        """Position after the last update."""
        return self.position + self.updates * self.first.batch_size

    def position_of(self, update: int) -> int:
        """Returns the position of an update of the span; `update` is 0 for the first update."""
        return self.position + update * self.first.batch_size


def spans(trajectory: Trajectory, position: int = 0) -> Iterator[Span]:
    """Yields the consecutive spans of the run from `position` on."""
    while position < trajectory.end:
        span = next_span(trajectory, position, trajectory.end)
        yield span
        position = span.end


def next_span(trajectory: Trajectory, position: int, until: int) -> Span:
    """Returns the span from `position` up to the first update that reaches position `until`.

    The span may end earlier: at a turn, or if the batch size changes. The time to find the end is
    logarithmic in the number of updates.
    """
    epochs = position / trajectory.examples
    setting = trajectory.at(position)
    updates = _updates_before(trajectory, position, setting.batch_size, until)
    flat = all(curve.is_flat(epochs) for curve in trajectory.curves)
    if not flat:
        updates = _updates_of_one_size(trajectory, position, setting.batch_size, updates)
    size = trajectory.image_size(position)
    return Span(position, updates, setting, flat or updates == 1, size)


def _updates_before(trajectory: Trajectory, position: int, size: int, until: int) -> int:
    """Returns how many updates start before both the next turn and `until`, but at least 1."""
    most = -(-(until - position) // size)
    epochs = position / trajectory.examples
    turn = trajectory.next_turn(epochs)
    if turn == math.inf:
        return max(1, most)
    before = max(0, math.floor((turn * trajectory.examples - position) / size))
    # Update `before` starts less than one update before the turn, or at the turn. The loop compares
    # epochs, as the curves do, so that no rounding error decides which of the two is true.
    while before < most and (position + before * size) / trajectory.examples < turn:
        before += 1
    return max(1, min(before, most))


def _updates_of_one_size(trajectory: Trajectory, position: int, size: int, most: int) -> int:
    """Returns the number of updates, up to `most`, before the batch size differs from `size`.

    The function looks ahead by 1, 2, 4, … updates until the size differs, and then bisects. If the
    batch size could return to `size`, bisection might fail, so the result is 1.
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
    high = min(low + step, most)  # Update `high` has another size, unless `high` is `most`.
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if same(middle) else (low, middle)
    return low + 1
