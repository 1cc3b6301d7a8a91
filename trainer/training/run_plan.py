"""Describes the plan of a run, including the micro-batch sizes that its devices compute."""

from collections.abc import Mapping

from trainer.config.flags import Config
from trainer.schedule import notes, plan
from trainer.schedule.layout import Layout, lay_out
from trainer.schedule.trajectory import Trajectory
from trainer.system.output import width


def text(
    config: Config,
    schedule: Trajectory,
    replicas: int,
    micro_batch_sizes: Mapping[int | None, int],
    begin: plan.Begin,
) -> str:
    """Returns the plan of a run as a table, followed by notes.

    The notes are about flags, and about batch sizes at which gradient noise cannot be measured.

    Args:
      config: flags of the run.
      schedule: schedule of the run.
      replicas: number of replicas over all processes.
      micro_batch_sizes: largest micro-batch of a replica, in examples, by the side of the images in
        pixels; the key is None if the side does not change during the run.
      begin: first update of the run; not 0 for a forked run.
    """
    ghost = config.ghost_batch_size

    def layout(batch_size: int, image_size: int | None) -> Layout:
        return lay_out(batch_size, replicas, ghost, micro_batch_sizes[image_size])

    ramps = plan.ramps(schedule, layout, begin)
    phases = [ramp.first for ramp in ramps]
    whole = {phase.batch_size for phase in phases if phase.micro_batch_size == phase.batch_size}
    lines = [
        f"the gradient noise scale is not measured at batch {size}, which is one micro-batch"
        + ("" if size == ghost else ": with a smaller --micro_batch_size, it is measured")
        for size in sorted(whole)
    ]
    lines = [*notes.lines(config, schedule.examples, phases), *lines]
    columns = plan.image_size_column(schedule)
    return plan.uncertain(config) + "\n".join([plan.table(ramps, columns, width()), *lines])
