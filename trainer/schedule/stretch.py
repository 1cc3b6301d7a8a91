"""A stretch: consecutive updates with one layout, what one call of the device does."""

import dataclasses

from trainer.schedule.layout import Layout, lay_out
from trainer.schedule.noise_scale import Setting
from trainer.schedule.trajectory import Trajectory


@dataclasses.dataclass(frozen=True)
class Stretch:
    """Updates from `position` on; their Settings share a batch size."""

    position: int
    settings: tuple[Setting, ...]
    layout: Layout

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
    """The updates from `position` to the first that ends at or after position `until`.

    It ends earlier after `most_updates`, or before an update with another batch size. `until` is
    above `position`.
    """
    settings = [trajectory.at(position)]
    size = settings[0].batch_size
    while len(settings) < most_updates and position + len(settings) * size < until:
        following = trajectory.at(position + len(settings) * size)
        if following.batch_size != size:
            break
        settings.append(following)
    layout = lay_out(size, replicas, ghost_batch_size, micro_batch_size)
    return Stretch(position, tuple(settings), layout)
