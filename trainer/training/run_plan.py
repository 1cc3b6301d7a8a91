"""Describes the plan of a run, including the micro-batch sizes that its devices compute."""

from collections.abc import Mapping

from trainer.config.flags import Config
from trainer.schedule import notes, plan, worker_counts
from trainer.schedule.layout import Layout, lay_out
from trainer.schedule.trajectory import Trajectory
from trainer.system.output import width

# Flags of train that decide how many workers a batch is worth.
_ELASTIC = (
    *("min_efficiency", "plan_change_seconds", "plan_examples_per_second"),
    *("plan_link_bandwidth", "plan_link_latency"),
)


def text(
    config: Config,
    schedule: Trajectory,
    replicas: int,
    workers: int,
    micro_batch_sizes: Mapping[int | None, int],
    begin: plan.Begin,
) -> str:
    """Returns the plan of a run as a table, followed by notes.

    The notes are about flags, and about batch sizes at which gradient noise cannot be measured.

    Args:
      config: flags of the run.
      schedule: schedule of the run.
      replicas: number of replicas over all processes.
      workers: number of processes.
      micro_batch_sizes: largest micro-batch of a replica, in examples, by the side of the images in
        pixels; the key is None if the side does not change during the run.
      begin: first update of the run; not 0 for a forked run.
    """
    ghost, each = config.ghost_batch_size, replicas // workers
    unit = schedule.micro_batch_size or ghost

    def layout(batch_size: int, image_size: int | None) -> Layout:
        sharing = workers
        while config.workers and not worker_counts.can_share(batch_size, sharing, each, unit):
            sharing -= 1
        return lay_out(batch_size, sharing * each, ghost, micro_batch_sizes[image_size])

    ramps = plan.ramps(schedule, layout, begin)
    phases = [ramp.first for ramp in ramps]
    whole = {phase.batch_size for phase in phases if phase.micro_batch_size == phase.batch_size}
    lines = [
        f"the gradient noise scale is not measured at batch {size}, which is one micro-batch"
        + ("" if size == ghost else ": with a smaller --micro_batch_size, it is measured")
        for size in sorted(whole)
    ]
    unused = [f"--{name}" for name in _ELASTIC if name in config.given]
    if unused and not config.workers:
        lines.append(f"{', '.join(unused)}: no effect without --workers")
    if config.workers:
        lines.append(
            f"--workers={config.workers} may change the number of workers during the run; the "
            f"table has the layouts of up to {workers}"
        )
    lines = [*notes.lines(config, schedule, phases), *lines]
    columns = plan.image_size_column(schedule)
    return plan.uncertain(config) + "\n".join([plan.table(ramps, columns, width()), *lines])
