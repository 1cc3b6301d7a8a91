"""Builds the text of --help: an overview of the program, or the flags of a command."""

import shutil
import textwrap
from collections.abc import Sequence

from trainer.config.commands import COMMANDS
from trainer.config.flags import FLAGS, Config

_HELP = frozenset(["-h", "--h", "-help", "--help", "--helpshort", "--helpfull"])
_WIDEST = 100  # Largest number of columns of a line; longer lines are hard to read.
# If the terminal has fewer columns than this, a flag's text is below its name, not beside it.
_TWO_COLUMNS = 76
_NAMES = 30  # Columns for the flags' names.
_USAGE = """\
Crescendo trains image classifiers with batches that grow instead of a learning rate that decays.

usage: python -m trainer COMMAND [--flag=value ...]
       crescendo COMMAND [--flag=value ...]        if the package is installed"""
_MORE = """\
`COMMAND --help` lists a command's flags, and `--version` prints the version. The default command is
train. --flagfile=NAME reads flags from a file or a recipe; later flags override earlier ones."""


def asked_for(arguments: Sequence[str]) -> str | None:
    """Returns the help text that a command line asks for, or None if it does not ask for help.

    Args:
      arguments: the command line without the program's name.
    """
    before = arguments[: arguments.index("--")] if "--" in arguments else arguments
    if not arguments or before[:1] == ["help"]:
        named = list(before[1:2])
    elif _HELP & set(before):
        named = [word for word in before[:1] if not word.startswith("-")]
    else:
        return None
    if "--helpfull" in before and not named:
        return "\n\n".join([overview(), *map(of_command, COMMANDS)])
    if not named or named[0] in _HELP:
        return overview()
    return of_command(named[0]) if named[0] in COMMANDS else None


def overview() -> str:
    """Returns the usage of the program, and an entry for each command."""
    longest = max(map(len, COMMANDS))
    rows = [
        _wrapped(f"  {name:{longest}}  {command.summary}", longest + 4)
        for name, command in COMMANDS.items()
    ]
    usage = [_wrapped(line, 7 if "[" in line else 0) for line in _USAGE.splitlines()]
    return "\n".join([*usage, "", *rows, "", _wrapped(_MORE.replace("\n", " "), 0)])


def of_command(name: str) -> str:
    """Returns the command's summary, an example, and its flags by group."""
    summary, example = COMMANDS[name]
    lines = [_wrapped(f"crescendo {name}: {summary}", 0), ""]
    lines.append(_wrapped(f"  python -m trainer {name} {example}", 6))
    group = ""
    flags = [item for item in FLAGS.items() if name in item[1].commands]
    # The group "Run" comes first, because most command lines use its flags.
    for flag_name, flag in sorted(flags, key=lambda item: item[1].group != "Run"):
        if flag.group != group:
            group = flag.group
            lines += ["", _wrapped(group, 0)]
        lines.append(_flag(flag_name, name))
    return "\n".join(lines)


def _flag(name: str, command: str) -> str:
    """Returns the entry of a flag: its name, help, choices for `command`, and default value."""
    flag, default = FLAGS[name], getattr(Config, name, None)
    head, text = f"  --{name}=", flag.help
    if choices := flag.choices_of(command):
        text += f" One of {', '.join(choices)}."
    if isinstance(default, bool):
        head = f"  --[no]{name}"
    elif default not in (None, ()):
        shown = f"{default:g}" if isinstance(default, float) else default
        text += f" (default: {shown})"
    if _width() < _TWO_COLUMNS:
        return f"{head}\n{_wrapped(6 * ' ' + text, 6)}"
    if len(head) > _NAMES - 2:
        return f"{head}\n{_wrapped(_NAMES * ' ' + text, _NAMES)}"
    return _wrapped(f"{head:{_NAMES}}{text}", _NAMES)


def _wrapped(text: str, indent: int) -> str:
    return textwrap.fill(text, _width(), subsequent_indent=indent * " ", break_on_hyphens=False)


def _width() -> int:
    return min(_WIDEST, shutil.get_terminal_size((_WIDEST, 24)).columns)
