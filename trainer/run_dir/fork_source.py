"""Gives a run with --fork_from the flags of the run that it begins with.

The parent is the run that --fork_from names, and the child is the run that begins with its state.
The parent's flags are the defaults of the child's flags. The child's initial batch size, learning
rate and momentum are computed from the parent's, at equal noise scale.
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from trainer.buckets.url import parse as parse_url
from trainer.config import command_line
from trainer.config.declaration import TRAINING
from trainer.config.flagfile import OF_THE_MACHINE
from trainer.config.flags import FLAGS, Config
from trainer.errors import UserError
from trainer.run_dir import lineage, model_source
from trainer.schedule import noise_scale, trajectory
from trainer.system.output import log

# Flags that decide the initial Setting: the reference, and what differs from it.
_REFERENCE = ("base_learning_rate", "base_batch_size", "base_momentum")
_START = ("initial_learning_rate", "initial_batch_size", "momentum")
# Beginning of the headings of flags that belong to some values of --anneal.
_OF_AN_ANNEAL = "Schedule: --anneal="
# Flags that tell where a run's first parameters come from.
_ORIGIN = ("fork_from", "fork_position", "init_from")


class Source(NamedTuple):
    """A parent's run directory, and the checkpoint to take: newest, best or an update."""

    folder: pathlib.Path
    checkpoint: str


def source(config: Config) -> Source:
    """Returns the run and the checkpoint that --fork_from names.

    Raises:
      UserError: if the run does not exist, or the checkpoint is not named.
    """
    text = config.fork_from or ""
    name, _, checkpoint = text.rpartition("@")
    if not name or not (checkpoint in ("newest", "best") or checkpoint.isdecimal()):
        raise UserError(
            f"--fork_from={text} does not name a checkpoint.\n"
            f"Write {name or text}@UPDATE, {name or text}@best or {name or text}@newest."
        )
    if parse_url(name):
        raise UserError(
            f"--fork_from={text} is in a bucket, and a fork reads a local run.\n"
            f"Copy it: python -m trainer fetch --model_dir={name} --local_dir=FOLDER"
        )
    folder = pathlib.Path(name)
    if not (folder / "flags.txt").exists():
        raise UserError(
            f"--fork_from={text}: {name} is not a run directory, because it has no flags.txt.\n"
            "Name the directory of a run."
        )
    return Source(folder, checkpoint)


def with_parent_flags(command: str, config: Config, given: Sequence[str]) -> Config:
    """Returns `config` with the parent's flags in place of the default values.

    If the child has begun, its record of the parent's flags replaces the parent's flags.txt, so
    that the child resumes even if the parent was moved.

    Args:
      command: name of the command.
      config: flags in `given`.
      given: the command line from which `config` was parsed.

    Raises:
      UserError: if the parent's flags cannot be read, or do not fit the given ones.
    """
    if command not in FLAGS["fork_from"].commands:
        if config.fork_from and command in TRAINING:
            raise UserError(
                f"--fork_from={config.fork_from} is for plan and train, not for {command}: remove "
                "it from the flagfile."
            )
        return config  # The flags are those of the run in --model_dir.
    if config.fork_from is None:
        if config.fork_position is not None:
            raise UserError("--fork_position=0 has no effect without --fork_from: leave it out.")
        return config
    if config.init_from:
        raise UserError(
            f"--fork_from={config.fork_from} and --init_from={config.init_from} both name the "
            "first parameters: leave one of the two out."
        )
    begun = lineage.of_child(config)
    lines = begun.flags if begun else parent_flags(source(config).folder)
    parent = command_line.parse("train", (), lines)
    left_out = {*_START}
    if "anneal" in config.given and config.anneal != parent.anneal:
        left_out |= {name for name, flag in FLAGS.items() if flag.group.startswith(_OF_AN_ANNEAL)}
    inherited = [line for line in lines if model_source.name_of(line) not in left_out]
    child = _with_start(command_line.parse(command, given, inherited), parent, config)
    if not begun and "anneal_epochs" not in config.given:
        _note_on_percentages(child, parent)
    return child


def parent_flags(folder: pathlib.Path) -> list[str]:
    """Returns the flags of the run in `folder` that a child takes over."""
    left_out = {*OF_THE_MACHINE, *_ORIGIN}
    recorded = model_source.recorded_flags(folder)
    return [line for line in recorded if model_source.name_of(line) not in left_out]


def _note_on_percentages(child: Config, parent: Config) -> None:
    """Logs that percentages of the parent's length are now percentages of another length."""
    percentages = [each for each in child.anneal_epochs if each.endswith("%")]
    if not percentages or child.epochs == parent.epochs:
        return
    epochs = [
        f"{float(each[:-1]) / 100 * parent.epochs:g}" if each.endswith("%") else each
        for each in child.anneal_epochs
    ]
    log(
        f"--anneal_epochs={','.join(child.anneal_epochs)} now counts in {child.epochs:g} epochs: "
        f"--anneal_epochs={','.join(epochs)} keeps the points of {parent.epochs:g} epochs"
    )


def _with_start(child: Config, parent: Config, given: Config) -> Config:
    """Returns `child` with the initial values that `given` has, and otherwise the parent's.

    The parent's initial Setting is the reference from which missing values are computed. If the
    user gives another reference, the initial values are computed from that one instead.

    Raises:
      UserError: if one of the runs is a range test, or the initial values contradict each other.
    """
    for config in (child, parent):
        if config.anneal == "range_test":
            raise UserError(
                "--fork_from cannot go on with or from a range test, because its learning rate "
                "only rises: name another run, and another --anneal."
            )
    if _has_own_reference(given, parent):
        return child
    to_sgd = child.optimizer == "sgd"
    if to_sgd:
        child = dataclasses.replace(child, base_momentum=None)
    rule = trajectory.scaling_of(child)
    same_rule = rule == trajectory.scaling_of(parent) and to_sgd == (parent.optimizer == "sgd")
    if same_rule and all(getattr(child, name) is None for name in _START):
        return dataclasses.replace(
            child,
            initial_learning_rate=parent.initial_learning_rate,
            initial_batch_size=parent.initial_batch_size,
            momentum=parent.momentum,
        )
    reference = trajectory.start_of(parent)
    batch_size, momentum = child.initial_batch_size, child.momentum
    if to_sgd and momentum is None:  # Without momentum, the learning rate takes its part of g.
        momentum = 0.0
        if batch_size is None and child.initial_learning_rate is None:
            batch_size = reference.batch_size
    start = noise_scale.solve(
        reference,
        learning_rate=child.initial_learning_rate,
        batch_size=batch_size,
        momentum=momentum,
        ghost_batch_size=child.ghost_batch_size,
        scaling=rule,
    )
    child = dataclasses.replace(
        child,
        initial_learning_rate=start.learning_rate,
        initial_batch_size=start.batch_size,
        momentum=start.momentum,
    )
    if same_rule:
        return child
    # --base_batch_size is also the unit of the reference clock, so the reference keeps it. Its
    # learning rate becomes the one that the new rule gives at this batch size.
    base = trajectory.reference_of(child)
    room = rule.one_minus_momentum(base.momentum)
    rate = rule.kept(start) * base.batch_size**rule.exponent * room
    return dataclasses.replace(child, base_learning_rate=rate)


def _has_own_reference(given: Config, parent: Config) -> bool:
    """Returns whether the user gives another reference than the parent's."""
    return any(
        name in given.given and getattr(given, name) != getattr(parent, name) for name in _REFERENCE
    )
