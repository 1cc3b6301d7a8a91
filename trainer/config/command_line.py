"""Parses a command line into a Config; each call makes new absl flags, so no state remains."""

import difflib
import re
import types
import typing
from collections.abc import Sequence
from typing import Any

from absl import flags as absl_flags

from trainer.config import flagfile, local_path
from trainer.config.commands import COMMANDS
from trainer.config.flagfile_reader import Argument, expand
from trainer.config.flags import FLAGS, Config
from trainer.errors import UserError

# Type of each flag; X for a flag of type `X | None`, which may be unset.
_TYPES = {
    name: next((each for each in typing.get_args(kind) if each is not types.NoneType), kind)
    if isinstance(kind, types.UnionType)
    else kind
    for name, kind in typing.get_type_hints(Config).items()
    if name in FLAGS
}
# Current names of flags, by their earlier names.
_RENAMED = {flag.formerly: name for name, flag in FLAGS.items() if flag.formerly}
_RENAMED_FLAG = re.compile(f"^(--?)({'|'.join(_RENAMED)})(?=$|=)")


def parse(command: str, arguments: Sequence[str], kept: Sequence[str] = ()) -> Config:
    """Parses the command line of `command`.

    For `report`, arguments that are not flags name run directories.

    Args:
      command: a name of `COMMANDS`.
      arguments: the command line after the command's name.
      kept: flags in the flags.txt of a run, which `arguments` override.

    Raises:
      UserError: if a flag is unknown, has a wrong value, or belongs to another command; or if an
        argument is not a flag.
    """
    # absl's logging reads absl's global flags, which keep their defaults.
    absl_flags.FLAGS.mark_as_parsed()
    _check_text(arguments)
    expanded = expand(arguments)
    order = ["--order_version=1"] if any(map(flagfile.is_of_version_1, expanded.flagfiles)) else []
    _check_are_of_command(
        command, [each.text for each in expanded.arguments if each.flagfile is None]
    )
    _check_flagfiles(command, expanded.arguments)
    parsed, rest = _parsed(command, [*order, *kept, *(each.text for each in expanded.arguments)])
    if rest and command != "report":
        raise UserError(f"unexpected argument {rest[0]!r}: flags are written --name=value.")
    values: dict[str, Any] = {name: parsed[name].value for name in FLAGS}
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    values["runs"] += (*rest,)
    for name, value in values.items():
        _check_value(name, value)
    given = {name: parsed[name].serialize() for name in FLAGS if parsed[name].present}
    config = flagfile.with_precision(Config(**values, given=given))
    _check_strategy(config)
    return config


def _parsed(command: str, arguments: Sequence[str]) -> tuple[absl_flags.FlagValues, list[str]]:
    """Returns the parsed flags, and the arguments that are not flags."""
    parsed = _absl_flags()
    try:
        _, *rest = parsed(["crescendo", *map(_current_name, arguments)])
    except absl_flags.Error as error:
        raise UserError(f"{error}\n{_see_help(command)}") from error
    return parsed, rest


def _current_name(argument: str) -> str:
    """Returns the argument with a flag's earlier name replaced by its current name."""
    return _RENAMED_FLAG.sub(lambda found: f"{found[1]}{_RENAMED[found[2]]}", argument)


def _absl_flags() -> absl_flags.FlagValues:
    """Returns new absl flags that have their default values."""
    found = absl_flags.FlagValues()
    found.set_gnu_getopt()
    for name, flag in FLAGS.items():
        default, about = getattr(Config, name, None), flag.help
        match _TYPES[name]:
            case kind if flag.choices:
                absl_flags.DEFINE_enum(name, default, flag.choices, about, flag_values=found)
            case kind if kind is bool:
                absl_flags.DEFINE_bool(name, default, about, flag_values=found)
            case kind if kind is int:
                absl_flags.DEFINE_integer(name, default, about, flag_values=found)
            case kind if kind is float:
                absl_flags.DEFINE_float(name, default, about, flag_values=found)
            case _ if flag.repeated:
                absl_flags.DEFINE_multi_string(name, default, about, flag_values=found)
            case kind if kind == tuple[str, ...]:
                absl_flags.DEFINE_list(name, default, about, flag_values=found)
            case _:
                absl_flags.DEFINE_string(name, default, about, flag_values=found)
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


def _check_flagfiles(command: str, arguments: Sequence[Argument]) -> None:
    """Refuses a flagfile with a wrong line, with a message that names the file."""
    for path in dict.fromkeys(each.flagfile for each in arguments if each.flagfile):
        lines = [each.text for each in arguments if each.flagfile == path]
        try:
            _, rest = _parsed(command, lines)
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
        if rest:
            raise UserError(f"{path}: unexpected {rest[0]!r}: flags are written --name=value.")


def _check_value(name: str, value: Any) -> None:
    """Refuses a value that is invalid for the flag, or that a flagfile cannot hold."""
    if name == "runs":
        for path in value:
            if why := local_path.problem(path):
                raise UserError(f"report cannot read {path!r}: it {why}.")
    if isinstance(value, str) and len(f"{value}.".splitlines()) > 1:
        raise UserError(
            f"--{name}={value!r} has a line break, but flags.txt has one line per flag: rename it."
        )
    if value is not None and (why := FLAGS[name].problem(value)):
        raise UserError(f"flag --{name}={value}: {why}")


def _check_strategy(config: Config) -> None:
    """Refuses flags that do not fit --strategy."""
    if config.strategy == "one_device" and (config.virtual_devices or 1) > 1:
        raise UserError(
            f"--strategy=one_device uses only one of --virtual_devices={config.virtual_devices}: "
            "use --strategy=mirrored, or leave --virtual_devices out."
        )
    if config.strategy == "multi_worker" and config.virtual_devices:
        raise UserError(
            f"--virtual_devices={config.virtual_devices} splits the CPU of one process, but "
            "--strategy=multi_worker has several processes: leave one of the two out."
        )
    if config.strategy == "auto" and config.tpu:
        raise UserError(f"--tpu={config.tpu} needs --strategy=tpu: add it, or leave --tpu out.")
    if config.strategy != "tpu":
        return
    if config.virtual_devices:
        raise UserError(
            f"--virtual_devices={config.virtual_devices} splits a CPU, but --strategy=tpu uses no "
            "CPU: leave one of the two out."
        )
    if not config.tpu:
        raise UserError(
            "--strategy=tpu needs --tpu: give --tpu=local on a TPU VM, or else a TPU's name with "
            "--tpu_zone and --tpu_project."
        )
    if config.tpu != "local" and not (config.tpu_zone and config.tpu_project):
        raise UserError(
            f"--tpu={config.tpu} is a name, which is looked up by zone and project: add "
            "--tpu_zone and --tpu_project, or use --tpu=local on the TPU VM."
        )


def _see_help(command: str) -> str:
    return f"`python -m trainer {command} --help` lists its flags."


def check_command(name: str) -> None:
    """Refuses a name that is not a command, with a message that suggests similar names.

    Raises:
      UserError: if `name` is not a command.
    """
    if name in COMMANDS:
        return
    near = difflib.get_close_matches(name, COMMANDS, n=2, cutoff=0.5)
    raise UserError(
        f"unknown command {name!r}{': did you mean ' + ' or '.join(near) + '?' if near else '.'}\n"
        f"The commands are {', '.join(COMMANDS)}."
    )
