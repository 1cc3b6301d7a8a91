"""Finds the run that --fork_from names, and records where its fork begins.

The parent is the run that --fork_from names, and the child is the run that begins with its state. A
position is the number of training examples that a run has consumed. The order of the examples is a
function of the position, so a child that goes on at the parent's position must have the parent's
order.
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from trainer.config import command_line
from trainer.config.flags import Config
from trainer.data.class_names import few
from trainer.distributed.process_group import ProcessGroup
from trainer.errors import UserError
from trainer.run_dir import checkpoint_reader, fork_source, lineage, metrics
from trainer.run_dir.checkpoint_progress import checked
from trainer.run_dir.lineage import Lineage
from trainer.run_dir.training_data import TrainingData
from trainer.schedule import plan, trajectory
from trainer.schedule.noise_scale import Setting
from trainer.schedule.trajectory import Trajectory
from trainer.system.output import log
from trainer.training.averaging import ModelAverage

# Flags that decide which example has which position.
_ORDER = ("seed", "order_version", "sampling")


@dataclasses.dataclass(frozen=True)
class Parent:
    """Checkpoint of the parent.

    Attributes:
      folder: the parent's run directory.
      path: path of the checkpoint.
      progress: the checkpoint's progress (training/state.py).
      config: the parent's flags.
      flags: the same as command-line arguments.
      data: properties of the parent's training data.
    """

    folder: pathlib.Path
    path: pathlib.Path
    progress: Mapping[str, Any]
    config: Config
    flags: list[str]
    data: TrainingData

    @property
    def position(self) -> int:
        """Number of examples that the parent had consumed."""
        return int(self.progress["position"])


def find(config: Config) -> Parent:
    """Returns the checkpoint that --fork_from names; reads no variables.

    Raises:
      UserError: if the run or the checkpoint does not exist or cannot be read.
    """
    source = fork_source.source(config)
    flags = fork_source.parent_flags(source.folder)
    checkpoints = source.folder / "checkpoints"
    try:
        path, progress = checkpoint_reader.load(checkpoints, source.checkpoint, {})
    except UserError as error:  # The user has not given --checkpoint.
        message = str(error).replace(
            f"--checkpoint={source.checkpoint}", f"--fork_from={config.fork_from}"
        )
        message = message.replace("Name another with --checkpoint", "Name another")
        raise UserError(
            message.replace(", an update, or the path of a checkpoint", " or an update")
        ) from error
    checked(progress, f"checkpoint {path}")
    data = checkpoint_reader.training_data(source.folder)
    if data is None:
        raise UserError(
            f"--fork_from={config.fork_from}: {source.folder} keeps no training_data.json, because "
            "an old version began it.\nResume it with this version, which writes the file."
        )
    parent = command_line.parse("train", (), flags)
    if parent.model != config.model:
        raise UserError(
            f"--model={config.model}, but {source.folder} has --model={parent.model}: a fork has "
            "the parameters of the other run.\nLeave --model out, or begin a run without "
            "--fork_from."
        )
    return Parent(source.folder, path, progress, parent, flags, data)


def check_order(parent: Parent, config: Config, examples: int) -> None:
    """Checks that the child has the parent's order of examples, unless it begins at position 0.

    Args:
      parent: checkpoint of the parent.
      config: flags of the child, with its order version.
      examples: number of the child's training examples.

    Raises:
      UserError: if the number of examples, or a flag that decides their order, differs.
    """
    if config.fork_position == 0:
        return
    pairs = {f"--{name}": (getattr(parent.config, name), getattr(config, name)) for name in _ORDER}
    pairs = {"the number of examples": (parent.data.examples, examples), **pairs}
    differ = [f"{name} {old} → {new}" for name, (old, new) in pairs.items() if old != new]
    if differ:
        raise UserError(
            f"--fork_from={config.fork_from} would go on at position {parent.position:,}, but the "
            f"order of the examples differs: {'; '.join(differ)}.\n"
            "Give --fork_position=0, which takes only the parameters and moving statistics."
        )


def lineage_of(parent: Parent, config: Config, child: Trajectory) -> Lineage:
    """Returns the record of the fork; sets the state of the child's controller.

    Args:
      parent: checkpoint of the parent.
      config: flags of the child.
      child: trajectory of the child.

    Raises:
      UserError: if nothing is left to train.
    """
    begin = 0 if config.fork_position == 0 else parent.position
    if begin >= child.end:
        raise UserError(
            f"--fork_from={config.fork_from} is at epoch {parent.position / child.examples:.2f}, "
            f"and the run ends at epoch {config.epochs:g}.\n"
            "Give a larger --epochs, an earlier checkpoint, or --fork_position=0."
        )
    before = trajectory.from_config(parent.config, parent.data.examples, 1, warns=False)
    if control := parent.progress.get("control"):
        before.control.load_state_dict(control)
        if same_controller(parent, config):
            child.control.take_over(control)
    at, after = before.at(parent.position), child.at(begin)
    if parent.position >= before.end and (last := parent.progress.get("setting")):
        at = Setting(**last)  # The parent has no next update.
    update = int(parent.progress["update"])
    return Lineage(
        fork_from=config.fork_from or "",
        run=str(parent.folder.resolve()),
        update=update,
        position=parent.position,
        epoch=parent.position / parent.data.examples,
        flags=parent.flags,
        before=vars(at) | {"noise_scale": before.noise_scale(at)},
        after=vars(after) | {"noise_scale": child.noise_scale(after)},
        evaluations=_last_evaluations(parent.folder, update),
        average_start=_average_start(parent, config),
    )


def _average_start(parent: Parent, config: Config) -> int:
    """Returns the start position of the child's average; 0 if it has no average."""
    if config.fork_position == 0 or config.ema_decay is None:
        return 0
    if parent.config.ema_decay is None:
        return parent.position
    before = lineage.read(parent.folder)
    return before.average_start if before else 0


def preprocessed(data: TrainingData, parent: Parent) -> TrainingData:
    """Returns `data` with the parent's preprocessing, which its parameters were trained with.

    Raises:
      UserError: if the classes differ from the parent's.
    """
    if data.class_names != parent.data.class_names:
        raise UserError(
            f"{parent.folder} has learned the classes {few(parent.data.class_names or ())}, but "
            f"these data have {few(data.class_names or ())}: a fork has the parameters of the "
            "other run.\nGive the classes their former names, or use --init_from for other classes."
        )
    kept = {name: getattr(parent.data, name) for name in ("mean", "std", "preprocessing")}
    if any(getattr(data, name) != value for name, value in kept.items()):
        log(f"images are standardised with the mean and deviation of {parent.folder}")
    return dataclasses.replace(data, **kept)


def same_controller(parent: Parent, config: Config) -> bool:
    """Returns whether the child takes over the state of the parent's controller."""
    return config.fork_position != 0 and parent.config.anneal == config.anneal


def _last_evaluations(folder: pathlib.Path, update: int) -> dict[str, dict[str, Any]]:
    """Returns the last evaluation of each split up to `update`, as in the run's metrics.jsonl."""
    points = [p for p in metrics.read(folder / metrics.FILE) if p["update"] <= update]
    return {point["split"]: point for point in points if point["split"] != "train"}


def start_average(average: ModelAverage | None, found: Lineage | None, group: ProcessGroup) -> None:
    """Tells the average, if there is one, where it began; `found` is the chief's lineage."""
    _, (start,) = group.agree(False, found.average_start if found else 0)
    if average:
        average.start = start


def begin(config: Config, found: Lineage | None) -> plan.Begin:
    """Returns the position and the number of a run's first update; `found` is its lineage."""
    if found is None or config.fork_position == 0:
        return plan.START
    return plan.Begin(found.position, found.update)


def keep(path: pathlib.Path, found: Lineage) -> None:
    """Logs the fork, and writes its record into the run directory `path`."""
    for line in found.lines():
        log(line)
    path.mkdir(parents=True, exist_ok=True)
    lineage.write(path, found)
