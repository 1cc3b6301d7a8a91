"""plan: prints the batch sizes and learning rates of a run.

The command imports TensorFlow only to measure how fast this machine decodes images, and to build
the model's layers if --layer_decay is set.
"""

import dataclasses
import json
import pathlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from trainer.config import image_sizes
from trainer.config.flags import Config
from trainer.data import bucket_files, class_balance, image_listing
from trainer.data.tfds import sizes
from trainer.errors import UserError
from trainer.reports import plan_plot
from trainer.run_dir import result
from trainer.schedule import averaging, cost, notes, plan, trajectory
from trainer.schedule.layout import default_micro_batch_size, lay_out
from trainer.system.output import say, width
from trainer.system.typed_json import DamagedError, problem


@dataclasses.dataclass(frozen=True, eq=False)
class _Plan:
    """Content of a plan.

    Attributes:
      schedule: trajectory of the run.
      layout: maps a batch size and an image size to a layout.
      ramps: phases, where consecutive phases of a ramp are condensed.
      machines: machines of the run; None if no cost is requested or known.
      values: all that --format=json prints, except for the phases.
      lines: notes about the plan.
    """

    schedule: trajectory.Trajectory
    layout: plan.Layouts
    ramps: Sequence[plan.Ramp]
    machines: cost.Machines | None
    values: Mapping[str, Any]
    lines: Sequence[str]

    def phases(self) -> Iterator[dict[str, Any]]:
        """Yields the phases as --format=json prints them, in order.

        A phase is a series of updates with equal settings, such as the batch size.
        """
        for phase in plan.phases(self.schedule, self.layout):
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
        note = f"--stop_at_epoch={config.stop_at_epoch:g} is ignored: the plan is of the whole run"
        say(f"crescendo plan: {note}", to=sys.stderr)
    if not config.train_examples and (
        note := image_listing.note(config.dataset, config.train_split)
    ):
        say(f"crescendo plan: {note}", to=sys.stderr)
    layout = layouts(config, schedule, replicas)
    ramps = plan.ramps(schedule, layout)
    counted = [ramp.first for ramp in ramps]
    examples, updates = schedule.examples, sum(each.updates for each in counted)
    machines = _machines(config, replicas, hosts)
    lines = _model_lines(config)
    lines += notes.lines(config, examples, counted)
    found: dict[str, Any] = {"examples": examples, "total_updates": updates}
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
    return _Plan(schedule, layout, ramps, machines, found, lines)


def _print(config: Config, found: _Plan) -> None:
    """Prints the plan as a table with notes."""
    machines, examples = found.machines, found.schedule.examples
    columns = plan.image_size_column(found.schedule)
    columns |= cost.columns(machines, examples) if machines else {}
    say(plan.uncertain(config) + plan.table(found.ramps, columns, width()))
    updates = found.values["total_updates"]
    say(f"{updates:,} updates over {config.epochs:g} epochs of {examples:,} examples")
    for line in found.lines:
        say(line)
    if machines:
        say(cost.summary([ramp.first for ramp in found.ramps], machines))
    elif _asks_for_cost(config):
        say(
            "the duration is not known: pass --plan_examples_per_second of one replica,\n"
            "or --model_dir of a finished run"
        )


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
        plan_plot.draw(found.schedule, found.ramps, config, config.plot)


def _model_lines(config: Config) -> list[str]:
    """Returns lines about frozen layers, layer groups, and class weights or balanced sampling."""
    lines = []
    if config.freeze:
        until = config.unfreeze_epochs
        end = "" if until is None else f" up to epoch {until:g}; the step is then traced once more"
        lines.append(f"layers that match {config.freeze} are frozen{end}")
    if config.layer_decay != 1:
        lines += _layer_groups(config).splitlines()
    return [*lines, *class_balance.described(config, _class_counts(config))]


def _layer_groups(config: Config) -> str:
    """Builds the model without reading images; returns a table of the groups of --layer_decay."""
    from trainer.nn import layer_groups
    from trainer.training import model_outline

    return layer_groups.table(model_outline.build(config), config.layer_decay)


def planned(
    config: Config,
    count_examples: Callable[[str, str, str | None], int | None] = sizes.count_examples,
) -> tuple[trajectory.Trajectory, int, int]:
    """Returns the trajectory of a run, the number of replicas, and the number of hosts.

    The trajectory maps a position (number of examples consumed so far) to a Setting (batch size,
    learning rate and momentum). `count_examples` takes a dataset, a split and a data folder. It
    returns the number of examples in the split, or None if this number is not known.

    Raises:
      UserError: if the flags contradict each other, or the number of training examples is not
        known.
    """
    examples = config.train_examples or count_examples(
        config.dataset, config.train_split, config.data_dir
    )
    if examples is None:
        raise UserError(
            f"the number of examples in {config.dataset}'s {config.train_split!r} is not known "
            "here: pass --train_examples."
        )
    trajectory.unfreeze_position(config, examples)  # Refuses flags that contradict each other.
    averaging.evaluated_with(config)  # Refuses to evaluate an average that the run does not have.
    hosts = config.plan_hosts or 1
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


def _class_counts(config: Config) -> dict[str, int] | None:
    """Returns the number of training examples of each class; None if not needed or not known."""
    balances = config.class_weights is not None or config.sampling == class_balance.BALANCED
    if not balances or config.train_examples or not image_listing.is_listed(config.dataset):
        return None
    return image_listing.list_files(config.dataset, config.train_split).counts()


def _machines(config: Config, replicas: int, hosts: int) -> cost.Machines | None:
    """Returns the machines of the run; None if no cost is requested or the speed is unknown.

    Raises:
      UserError: if the speed comes from a run in --model_dir that had several hosts. Also if the
        plan has several hosts, and the number of the model's parameters is unknown.
    """
    if not _asks_for_cost(config):
        return None
    ended = _ended(pathlib.Path(config.model_dir)) if config.model_dir else {}
    size = image_sizes.sizes(config.image_sizes)[-1] if config.image_sizes else None
    if config.plan_examples_per_second:
        compute = cost.Compute(example=1 / config.plan_examples_per_second)
    elif ended.get("update_seconds"):
        if ended["hosts"] > 1:
            raise UserError(
                f"{config.model_dir} was trained by {ended['hosts']} hosts, so its speed includes "
                "communication.\n"
                "Name a run of one host, or pass --plan_examples_per_second of one replica."
            )
        compute = cost.measured(ended["update_seconds"], ended["replicas"])
        size = _size_of_times(config.model_dir, ended.get("image_size"), size)
    else:
        return None
    parameters = config.plan_parameters or ended.get("parameters")
    if hosts > 1 and not parameters:
        raise UserError(
            f"--plan_hosts={hosts} needs the number of the model's parameters, which the hosts sum "
            "in each update.\nPass --plan_parameters, or --model_dir of a finished run."
        )
    return cost.Machines(
        replicas=replicas,
        hosts=hosts,
        compute=compute,
        parameters=parameters or 0,
        bandwidth=config.plan_link_bandwidth,
        latency=config.plan_link_latency,
        image_size=size,
    )


def _stays_encoded(config: Config) -> bool:
    """Returns whether the flags alone make training decode all images again in each epoch."""
    several = bool(config.image_sizes) and image_listing.is_listed(config.dataset)
    return config.augmentation.resized_crop or config.skip_bad_examples or several


def _size_of_times(run: str | None, measured: int | None, planned: int | None) -> int | None:
    """Returns the side of the images, in pixels, for which the update times of `run` hold.

    `measured` is the last size in `run`, and `planned` the last size in the plan. Each is None if
    the size does not change. If only one of the two is None, a note on stderr names the other size.
    """
    if measured is None and planned is not None:
        note = f"the update times of {run} are assumed to hold for images of {planned} pixels"
    elif measured is not None and planned is None:
        note = f"the update times of {run} hold for images of {measured} pixels"
    else:
        return measured
    say(f"crescendo plan: {note}", to=sys.stderr)
    return measured or planned


def _ended(folder: pathlib.Path) -> dict[str, Any]:
    """Returns the result of the run in `folder`; {} if the result is missing or damaged."""
    try:
        return result.read(folder) or {}
    except (DamagedError, OSError) as error:
        note = f"{folder / result.FILE} {problem(error)}; its times are not known."
        say(f"crescendo plan: {note}", to=sys.stderr)
        return {}


def _asks_for_cost(config: Config) -> bool:
    return config.plan_replicas is not None or config.plan_hosts is not None
