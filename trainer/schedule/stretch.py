"""Stretches: consecutive updates with one layout. The devices compute a stretch in one call.

The layout divides a batch into micro-batches (layout.py). A position is the number of training
examples that the run has consumed. At each position, the trajectory gives a Setting: the batch
size, learning rate and momentum of an update (trajectory.py).
"""

import dataclasses

from trainer.schedule.layout import Layout, lay_out
from trainer.schedule.noise_scale import Setting
from trainer.schedule.span import next_span
from trainer.schedule.trajectory import Trajectory


@dataclasses.dataclass(frozen=True)
class Stretch:
    """Consecutive updates of one batch size and one image size; the first starts at `position`."""

    position: int
    settings: tuple[Setting, ...]  # Batch size, learning rate and momentum of each update.
    layout: Layout
    image_size: int | None = None  # Side of the images, in pixels, if it changes during the run.

    @property
    def batch_size(self) -> int:
        return self.settings[0].batch_size

    @property
    def end(self) -> int:
        return self.position + len(self.settings) * self.batch_size


def next_stretch(
    trajectory: Trajectory,
    position: int,
    *,
    until: int,
    most_updates: int,
    replicas: int,
    ghost_batch_size: int,
    micro_batch_size: int,
) -> Stretch:
    """Returns the stretch from `position` up to the first update that reaches position `until`.

    The stretch ends earlier after `most_updates` updates, or if the batch size or the image size
    changes. `until` must be above `position`. `micro_batch_size` is the largest size of a
    micro-batch, in examples.
    """
    span = next_span(trajectory, position, until)
    size, image_size = span.first.batch_size, span.image_size
    settings: list[Setting] = []
    while (span.first.batch_size, span.image_size) == (size, image_size):
        updates = min(span.updates, most_updates - len(settings))
        if span.flat:
            settings += updates * [span.first]
        else:
            settings += [trajectory.at(span.position_of(update)) for update in range(updates)]
        if span.end >= until or len(settings) == most_updates:
            break
        span = next_span(trajectory, span.end, until)
    layout = lay_out(size, replicas, ghost_batch_size, micro_batch_size)
    return Stretch(position, tuple(settings), layout, image_size)
