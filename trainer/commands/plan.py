"""plan: what a run would do, in well under a second and without TensorFlow."""

import dataclasses
import json

from trainer.config import Config, UserError
from trainer.data import sizes
from trainer.reports import plan_plot
from trainer.schedule import plan, trajectory
from trainer.schedule.layout import unmeasured


def run(config: Config) -> int:
    """Prints the plan, and draws it where --plot says so.

    Raises:
      UserError: for flags that no run can have, or where N is not known.
    """
    examples = config.train_examples or sizes.count_examples(
        config.dataset, config.train_split, config.data_dir
    )
    if examples is None:
        raise UserError(
            f"how many examples {config.dataset}'s {config.train_split!r} has is not known here: "
            "pass --train_examples."
        )
    replicas = config.virtual_devices or 1
    schedule = trajectory.from_config(config, examples, replicas)
    phases = list(
        plan.phases(
            schedule,
            replicas=replicas,
            ghost_batch_size=config.ghost_batch_size,
            micro_batch_size=schedule.micro_batch_size
            or config.micro_batch_size
            or unmeasured(config.ghost_batch_size),
        )
    )
    updates = sum(phase.updates for phase in phases)
    if config.format == "json":
        rows = [dataclasses.asdict(phase) for phase in phases]
        print(json.dumps({"examples": examples, "total_updates": updates, "phases": rows}))
    else:
        print(plan.uncertain(config) + plan.table(phases))
        print(f"{updates:,} updates over {config.epochs:g} epochs of {examples:,} examples")
    if config.plot:
        plan_plot.draw(phases, schedule.epochs, config.plot)
    return 0
