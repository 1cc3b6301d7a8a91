"""plan: prints the batch sizes and learning rates of a run.

The command imports TensorFlow only to measure how fast this machine decodes images, to build the
model's layers if --layer_decay is set, to read the checkpoint of --fork_from, and to refuse a model
that does not exist.
"""

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from trainer.config import number_range
from trainer.config.flags import Config
from trainer.data import bucket_files, image_listing
from trainer.data.tfds import sizes
from trainer.errors import UserError
from trainer.reports import plan_plot
from trainer.run_dir import fork_source, training_data
from trainer.run_dir.lineage import Lineage
from trainer.schedule import averaging, cost, notes, plan, trajectory, worker_counts
from trainer.schedule.layout import default_micro_batch_size, lay_out
from trainer.system.output import say, width
from trainer.training import planned_machines, planned_model


@dataclasses.dataclass(frozen=True, eq=False)
class _Plan:
    """Content of a plan.

    Attributes:
      schedule: trajectory of the run.
      layout: maps a batch size and an image size to a layout.
      begin: first update of the plan; not 0 for a forked run.
      ramps: the updates, as phases and ramps of phases (schedule/plan.py).
      machines: machines of the run; None if no cost is requested or known.
      choice: number of workers of each ramp; None if --workers is not set.
      values: all that --format=json prints, except for the phases.
      lines: notes about the plan.
    """

    schedule: trajectory.Trajectory
    layout: plan.Layouts
    begin: plan.Begin
    ramps: Sequence[plan.Ramp]
    machines: cost.Machines | None
    choice: worker_counts.Choice | None
    values: Mapping[str, Any]
    lines: Sequence[str]

    def phases(self) -> Iterator[dict[str, Any]]:
        """Yields the phases as --format=json prints them, in order.

        A phase is a series of updates with equal settings, such as the batch size.
        """
        for phase in plan.phases(self.schedule, self.layout, self.begin):
            costs = vars(cost.phase_cost(phase, self.machines)) if self.machines else {}
            yield phase.as_json() | costs


def run(config: Config) -> int:
    """Prints the plan, and draws it if --plot is set.

    Raises:
      UserError: if the flags contradict each other, or the number of training examples is not
        known.
    """
    found = _plan(config)
    if config.format == "json":
        _write_json(found)
    else:
        _print(config, found)
    _draw(config, found)
    return 0


def as_json(config: Config) -> dict[str, Any]:
    """Returns the object that --format=json prints, and draws the plan if --plot is set.

    Raises:
      UserError: if `run` raises it.
    """
    found = _plan(config)
    _draw(config, found)
    return {**found.values, "phases": list(found.phases())}


def _plan(config: Config) -> _Plan:
    """Makes the plan; notes that do not belong to it go to stderr."""
    schedule, replicas, hosts = planned(config)
    if config.stop_at_epoch is not None:
        note = f"--stop_at_epoch={config.stop_at_epoch:g} is ignored: the plan covers the whole run"
        say(f"crescendo plan: {note}", to=sys.stderr)
    if not config.train_examples and (
        note := image_listing.note(config.dataset, config.train_split)
    ):
        say(f"crescendo plan: {note}", to=sys.stderr)
    begin, forked = _fork(config, schedule)
    layout = layouts(config, schedule, replicas)
    ramps = plan.ramps(schedule, layout, begin)
    counted = [ramp.first for ramp in ramps]
    examples, updates = schedule.examples, sum(each.updates for each in counted)
    machines = planned_machines.machines(config, replicas, hosts)
    lines = [*(forked.lines() if forked else []), *planned_model.lines(config, examples)]
    lines += notes.lines(config, schedule, counted)
    found: dict[str, Any] = {"examples": examples, "total_updates": updates}
    if forked:
        found["fork"] = forked.as_json()
    choice = _workers(config, schedule, counted, machines)
    if choice:
        found["workers"] = choice.as_json()
    if not config.train_examples and (fetched := bucket_files.find(config)):
        found["data"] = dataclasses.asdict(fetched)
        lines.append(fetched.line())
    if machines and _stays_encoded(config):
        from trainer.training import input_rate  # Imports TensorFlow.

        rates, line = input_rate.described(config, *cost.fastest_host(counted, machines))
        found |= rates
        lines.append(line)
    found |= cost.whole(counted, machines) if machines else {}
    found |= {"notes": lines} if lines else {}
    if choice:
        lines = [*lines, "the table above is of one worker; with --workers:", choice.text()]
    return _Plan(schedule, layout, begin, ramps, machines, choice, found, lines)


def _workers(
    config: Config,
    schedule: trajectory.Trajectory,
    phases: Sequence[plan.Phase],
    machines: cost.Machines | None,
) -> worker_counts.Choice | None:
    """Returns the number of workers of each phase; None if --workers is not set."""
    if config.workers is None:
        return None
    if machines is None:
        raise UserError(
            f"--workers={config.workers} needs the speed of a worker.\n"
            "Pass --plan_examples_per_second of one replica, or --model_dir of a finished run."
        )
    return worker_counts.choose(
        phases,
        machines,
        number_range.parse(config.workers).numbers(),
        unit=schedule.micro_batch_size or config.ghost_batch_size,
        min_efficiency=config.min_efficiency,
        change_seconds=config.plan_change_seconds,
    )


def _print(config: Config, found: _Plan) -> None:
    """Prints the plan as a table with notes."""
    machines, examples = found.machines, found.schedule.examples
    columns = plan.image_size_column(found.schedule)
    columns |= cost.columns(machines, examples) if machines else {}
    say(plan.uncertain(config) + plan.table(found.ramps, columns, width()))
    updates = found.values["total_updates"]
    span = f"over {config.epochs:g} epoch{_s(config.epochs)}"
    if found.begin.position:
        first = found.begin.position / examples
        span = f"from epoch {first:.2f} to {config.epochs:g}, epochs"
    say(f"{updates:,} update{_s(updates)} {span} of {examples:,} example{_s(examples)}")
    for line in found.lines:
        say(line)
    if found.choice:
        return  # The last line has the durations.
    if machines:
        say(cost.summary([ramp.first for ramp in found.ramps], machines))
    elif planned_machines.asks_for_cost(config):
        say(
            "the duration is not known: pass --plan_examples_per_second of one replica,\n"
            "or --model_dir of a finished run"
        )


def _s(number: float) -> str:
    """Returns the ending of a noun after `number`."""
    return "" if number == 1 else "s"


def _write_json(found: _Plan) -> None:
    """Prints the plan as one JSON object.

    Each phase is printed before the next phase is computed, because millions of phases may not fit
    in memory.
    """
    sys.stdout.write(json.dumps(found.values)[:-1] + ', "phases": [')
    for number, phase in enumerate(found.phases()):
        sys.stdout.write((", " if number else "") + json.dumps(phase))
    say("]}")


def _draw(config: Config, found: _Plan) -> None:
    if config.plot:
        workers = found.choice.workers if found.choice else None
        plan_plot.draw(found.schedule, found.ramps, config, config.plot, workers)


def _fork(config: Config, schedule: trajectory.Trajectory) -> tuple[plan.Begin, Lineage | None]:
    """Returns the first update of the plan, and where a run with --fork_from begins."""
    if config.fork_from is None:
        return plan.START, None
    from trainer.training import fork  # Imports TensorFlow, which reads checkpoints.

    parent = fork.find(config)
    fork.check_order(parent, config, schedule.examples)
    found = fork.lineage_of(parent, config, schedule)
    return fork.begin(config, found), found


def planned(
    config: Config,
    count_examples: Callable[[str, str, str | None], int | None] = sizes.count_examples,
) -> tuple[trajectory.Trajectory, int, int]:
    """Returns the trajectory of a run, the number of replicas, and the number of hosts.

    The trajectory maps a position (number of examples consumed so far) to a Setting (batch size,
    learning rate and momentum). `count_examples` takes a dataset, a split and a data folder. It
    returns the number of examples in the split, or None if this number is not known.

    Raises:
      UserError: if the model does not exist, the flags contradict each other, or the number of
        training examples is not known.
    """
    planned_model.check_name(config.model)
    examples = config.train_examples or count_examples(
        config.dataset, config.train_split, config.data_dir
    )
    if examples is None and config.fork_from:
        kept = training_data.read(fork_source.source(config).folder)
        examples = kept.examples if kept else None
    if examples is None:
        raise UserError(
            f"the number of examples in {config.dataset}'s {config.train_split!r} is not known "
            "here: pass --train_examples."
        )
    trajectory.unfreeze_position(config, examples)  # Refuses flags that contradict each other.
    averaging.evaluated_with(config)  # Refuses to evaluate an average that the run does not have.
    hosts = config.plan_hosts or 1
    if config.workers and config.plan_hosts:
        raise UserError(
            f"--plan_hosts={config.plan_hosts} and --workers={config.workers} both name a number "
            "of hosts: leave one of the two out."
        )
    if "," in (config.tpu or "") and config.plan_replicas is None:
        raise UserError(
            f"--tpu={config.tpu} does not tell how many cores the hosts have: add --plan_replicas."
        )
    replicas = config.plan_replicas or config.virtual_devices or hosts
    if replicas % hosts:
        raise UserError(
            f"--plan_hosts={hosts} cannot share {replicas} replicas evenly.\n"
            f"Use --plan_replicas={-(-replicas // hosts) * hosts}, or a --plan_hosts that divides "
            f"{replicas}."
        )
    return trajectory.from_config(config, examples, replicas), replicas, hosts


def layouts(config: Config, schedule: trajectory.Trajectory, replicas: int) -> plan.Layouts:
    """Returns a function from the batch size and the image size to the layout.

    A layout is (replicas, micro-batch size, accumulation). It does not depend on the image size.
    """
    # If --micro_batch_size is 0, training may measure the best size. The plan assumes the default.
    ghost = config.ghost_batch_size
    most = schedule.micro_batch_size or config.micro_batch_size or default_micro_batch_size(ghost)
    return lambda batch_size, _: lay_out(batch_size, replicas, ghost, most)


def _stays_encoded(config: Config) -> bool:
    """Returns whether the flags alone make training decode all images again in each epoch."""
    several = bool(config.image_sizes) and image_listing.is_listed(config.dataset)
    return config.augmentation.resized_crop or config.skip_bad_examples or several
