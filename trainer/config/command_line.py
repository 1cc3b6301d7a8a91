"""Parses a command line into a Config, and checks that the flags fit each other."""

import difflib
import pathlib
import re
import reprlib
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl import flags as absl_flags

from trainer.config import augment_list, flagfile, local_path, training_targets, worker_range
from trainer.config.commands import COMMANDS
from trainer.config.declaration import TRAINING
from trainer.config.flagfile_reader import expand
from trainer.config.flags import FLAGS, Config
from trainer.config.model_flags import FLOAT32
from trainer.errors import UserError

_TYPES = typing.get_type_hints(Config)
# Maps a type to the absl function that defines a flag of this type. absl reads a flag of any other
# type as a string.
_DEFINE: dict[Any, Callable[..., Any]] = {
    bool: absl_flags.DEFINE_bool,
    int: absl_flags.DEFINE_integer,
    int | None: absl_flags.DEFINE_integer,
    float: absl_flags.DEFINE_float,
    float | None: absl_flags.DEFINE_float,
    tuple[str, ...]: absl_flags.DEFINE_list,
}
# Maps a flag's earlier name to its current name.
_RENAMED = {flag.formerly: name for name, flag in FLAGS.items() if flag.formerly}
# Maps a command to a flag. The values of this flag may be given without the flag's name.
_POSITIONAL = {"report": "runs", "predict": "images"}
_RENAMED_FLAG = re.compile(f"^(--?)({'|'.join(_RENAMED)})(?=$|=)")


def parse(command: str, arguments: Sequence[str], kept: Sequence[str] = ()) -> Config:
    """Parses the command line of `command`.

    Only `report` and `predict` accept arguments that are not flags. Such an argument is the path of
    a run directory for `report`, and of a picture for `predict`.

    Args:
      command: a name of `COMMANDS`.
      arguments: the command line after the command's name.
      kept: flags in a run's flags.txt; a flag in `arguments` overrides the same flag in `kept`.

    Raises:
      UserError: if a flag is unknown, has a wrong value, contradicts another flag, or belongs to
        another command. Also if a flagfile cannot be read, or an argument is unexpected.
    """
    # absl's logging reads absl's global flags, and fails unless they are marked as parsed.
    absl_flags.FLAGS.mark_as_parsed()
    if command != "predict":  # No flags.txt holds a picture's path, so the path need not be UTF-8.
        _check_text(arguments)
    expanded = expand(arguments)
    # Maps a flagfile to its arguments, and None to the arguments of the command line itself.
    lines: dict[pathlib.Path | None, list[str]] = {}
    for each in expanded:
        lines.setdefault(each.flagfile, []).append(each.text)
    _check_are_of_command(command, lines.pop(None, []))
    _check_flagfiles(command, lines)
    old = any(map(flagfile.is_of_version_1, lines.values()))
    oldest = ["--order_version=1", f"--precision={FLOAT32}"] if old else []
    parsed, rest = _parsed(command, [*oldest, *kept, *(each.text for each in expanded)])
    if rest and command not in _POSITIONAL:
        raise UserError(f"unexpected argument {rest[0]!r}: flags are written --name=value.")
    values: dict[str, Any] = {name: parsed[name].value for name in FLAGS}
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    if rest:
        values[_POSITIONAL[command]] += (*rest,)
    for name, value in values.items():
        _check_value(name, value)
        _check_choice(command, name, value)
    given = {name: parsed[name].serialize() for name in FLAGS if parsed[name].present}
    config = Config(**values, given=given)
    if command != "sweep":  # A point of a sweep adds flags, so `sweep` checks each point.
        check_together(command, config)
    return config


def check_together(command: str, config: Config) -> None:
    """Checks that the flags of `config` fit each other.

    Raises:
      UserError: if a flag contradicts another flag, or another flag makes it ineffective.
    """
    _check_strategy(config)
    if command == "train":
        worker_range.check(config)
    if "," in (config.tpu or "") and command not in ("train", "range_test", "plan"):
        raise UserError(
            f"--tpu={config.tpu} names several hosts, which only train and range_test use: for "
            f"{command}, leave --strategy and --tpu out."
        )
    if "," in (config.tpu or "") and config.profile_updates:
        raise UserError(
            f"--profile_updates={config.profile_updates} records only this process, and the hosts "
            "of --tpu do the work: leave it out."
        )
    _check_balance(config)
    _check_drop_path(config)
    # `evaluate`, `export` and `predict` take a run's flags, but the user may replace --augment.
    # The run's other augmentation flags then have no effect, so they need not fit the new value.
    if command in TRAINING:
        _check_augment(config)
        training_targets.check(config)


def _parsed(command: str, arguments: Sequence[str]) -> tuple[absl_flags.FlagValues, list[str]]:
    """Returns the parsed flags, and the arguments that are not flags."""
    parsed = _absl_flags()
    try:
        _, *rest = parsed(["crescendo", *map(_current_name, arguments)])
    except absl_flags.Error as error:
        raise UserError(f"{error}\n{_see_help(command)}") from error
    return parsed, rest


def _current_name(argument: str) -> str:
    """Returns the argument, with the current name of its flag if an earlier name is given."""
    return _RENAMED_FLAG.sub(lambda found: f"{found[1]}{_RENAMED[found[2]]}", argument)


def _absl_flags() -> absl_flags.FlagValues:
    """Returns new absl flags with default values, so that calls of `parse` are independent."""
    found = absl_flags.FlagValues()
    found.set_gnu_getopt()
    for name, flag in FLAGS.items():
        default = getattr(Config, name, None)
        more: dict[str, Any] = {"help": flag.help, "flag_values": found}
        if flag.choices:
            absl_flags.DEFINE_enum(name, default, flag.choices, **more)
        elif flag.repeated:
            absl_flags.DEFINE_multi_string(name, default, **more)
        else:
            _DEFINE.get(_TYPES[name], absl_flags.DEFINE_string)(name, default, **more)
    return found


def _check_text(arguments: Sequence[str]) -> None:
    for argument in arguments:
        if any("\udc80" <= character <= "\udcff" for character in argument):
            raise UserError(
                f"{argument!r} is not UTF-8, which flags.txt needs: rename it, or use a link to it."
            )


def _check_are_of_command(command: str, typed: Sequence[str]) -> None:
    """Refuses flags of other commands on the command line; flagfiles may hold such flags."""
    parsed, _ = _parsed(command, typed)
    for name, flag in FLAGS.items():
        if parsed[name].present and command not in flag.commands:
            names = [each for each in COMMANDS if each in flag.commands]
            raise UserError(
                f"--{name} is a flag of {', '.join(names)}, not of {command}.\n"
                f"Leave it out. {_see_help(command)}"
            )


def _check_flagfiles(command: str, files: Mapping[pathlib.Path | None, Sequence[str]]) -> None:
    """Refuses a flagfile with a wrong line; the message names the file."""
    for path, lines in files.items():
        try:
            _, rest = _parsed(command, lines)
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
        if rest:
            raise UserError(f"{path}: unexpected {rest[0]!r}: flags are written --name=value.")


def _check_value(name: str, value: Any) -> None:
    """Refuses a value that the flag does not accept, or that flags.txt cannot hold."""
    for command in (each for each in _POSITIONAL if _POSITIONAL[each] == name):
        problem = local_path.run_problem if command == "report" else local_path.problem
        for path in value:
            if why := problem(path):
                raise UserError(f"{command} cannot read {path!r}: it {why}.")
    if isinstance(value, str) and len(f"{value}.".splitlines()) > 1:
        raise UserError(
            f"--{name}={value!r} has a line break, and flags.txt has one line per flag: "
            "remove the line break, or rename the file."
        )
    if value is not None and (why := FLAGS[name].problem(value)):
        given = ",".join(value) if isinstance(value, tuple) else value
        raise UserError(f"flag --{name}={given}: {why}")
    if isinstance(value, int) and abs(value) >= 2**63:
        raise UserError(f"flag --{name}={reprlib.repr(value)}: must be below 2⁶³")


def _check_choice(command: str, name: str, value: Any) -> None:
    """Refuses a value that only other commands accept for this flag."""
    flag = FLAGS[name]
    accepted = flag.choices_of(command)
    if command in flag.commands and value in flag.choices and value not in accepted:
        raise UserError(
            f"--{name}={value} is for {', '.join(flag.only[value])}, not for {command}: "
            f"use {' or '.join(accepted)}."
        )


def _check_strategy(config: Config) -> None:
    """Refuses flags that do not fit --strategy."""
    if config.strategy == "one_device" and (config.virtual_devices or 1) > 1:
        raise UserError(
            f"--strategy=one_device uses only one of --virtual_devices={config.virtual_devices}: "
            "use --strategy=mirrored, or leave --virtual_devices out."
        )
    if config.strategy in ("multi_worker", "tpu") and config.virtual_devices:
        raise UserError(
            f"--virtual_devices={config.virtual_devices} splits the CPU of one process, which "
            f"--strategy={config.strategy} cannot use: leave one of the two out."
        )
    if config.strategy == "auto" and config.tpu:
        raise UserError(f"--tpu={config.tpu} needs --strategy=tpu: add it, or leave --tpu out.")
    if config.strategy != "tpu":
        return
    if config.xla == "off":
        raise UserError(
            "--xla=off has no effect with --strategy=tpu, because XLA always compiles for TPUs: "
            "leave it out."
        )
    if not config.tpu:
        raise UserError(
            "--strategy=tpu needs --tpu: give --tpu=local on a TPU VM, or else a TPU's name with "
            "--tpu_zone and --tpu_project."
        )
    if "," in config.tpu:
        return  # The addresses of a slice's hosts need no zone and project.
    if config.tpu != "local" and not (config.tpu_zone and config.tpu_project):
        raise UserError(
            f"--tpu={config.tpu} is a name, which is looked up by zone and project: add "
            "--tpu_zone and --tpu_project, or use --tpu=local on the TPU VM."
        )


def _check_balance(config: Config) -> None:
    """Refuses flags that do not fit --sampling=balanced."""
    if config.sampling != "balanced":
        return
    if config.class_weights is not None:
        raise UserError(
            f"--class_weights={config.class_weights} and --sampling=balanced would both correct "
            "the frequency of the classes: leave one of the two out."
        )
    if config.order_version == 1:
        raise UserError(
            "--sampling=balanced cannot have --order_version=1: give --order_version=2."
        )
    if config.anneal == "measured":
        raise UserError(
            "--anneal=measured needs examples that are drawn independently, and "
            "--sampling=balanced draws classes in rounds: use another --anneal, or --class_weights."
        )


def _check_augment(config: Config) -> None:
    """Refuses a flag of an augmentation that --augment does not name."""
    named = augment_list.names_in(config.augment)
    for name, item in augment_list.FLAG_OF.items():
        value, default = getattr(config, name), getattr(Config, name)
        if value != default and item not in named:
            added = item if config.augment == "none" else f"{config.augment},{item}"
            fits = not augment_list.problem(added)
            raise UserError(
                f"--{name}={value} is for --augment={item}, not for --augment={config.augment}: "
                f"give {f'--augment={added} or ' if fits else ''}--{name}={default}, the default."
            )


def _check_drop_path(config: Config) -> None:
    """Refuses stochastic depth for models that do not have it."""
    if config.drop_path and not re.fullmatch(r"resnet_50|vit_[a-z]+_\d+", config.model):
        raise UserError(
            f"--drop_path={config.drop_path:g} is for resnet_50 and vit, and "
            f"--model={config.model} has no stochastic depth.\n"
            "Leave --drop_path out, or name another model."
        )


def _see_help(command: str) -> str:
    return f"`python -m trainer {command} --help` lists its flags."


def check_command(name: str) -> None:
    """Checks that `name` is a command.

    Raises:
      UserError: if `name` is not a command; the message suggests similar names.
    """
    if name in COMMANDS:
        return
    near = difflib.get_close_matches(name, COMMANDS, n=2, cutoff=0.5)
    raise UserError(
        f"unknown command {name!r}{': did you mean ' + ' or '.join(near) + '?' if near else '.'}\n"
        f"The commands are {', '.join(COMMANDS)}."
    )
