"""Replaces each flagfile on a command line by the flags in this file.

A flagfile has one flag per line; lines that start with # or // are comments. A flagfile is looked
up in the current folder, and then among the recipes. The recipes are flagfiles that come with this
program. If x.flags contains --flagfile=y.flags, the folder of x.flags is searched first.
"""

import dataclasses
import difflib
import os
import pathlib
from collections.abc import Iterator, Sequence

from trainer.errors import UserError
from trainer.system.regular_file import NotRegularError, read_regular

_SUFFIX = ".flags"
_MOST_BYTES = 2**20  # Largest size of a flagfile; the flags.txt of a run has 3 kB.
_PACKAGE = pathlib.Path(__file__).parents[1]


@dataclasses.dataclass(frozen=True)
class Argument:
    """One argument of a command line.

    Attributes:
      text: the argument.
      flagfile: the flagfile that holds the argument, or None for the command line itself.
    """

    text: str
    flagfile: pathlib.Path | None = None


def expand(arguments: Sequence[str]) -> list[Argument]:
    """Returns the arguments, with the flags in the file x in place of --flagfile=x.

    The forms -flagfile=x and --flagfile x are replaced in the same way.

    Raises:
      UserError: if a flagfile cannot be read, or includes itself (perhaps through other flagfiles).
    """
    expanded: list[Argument] = []
    following = iter(arguments)
    for text in following:
        if text == "--":
            expanded += [Argument(each) for each in (text, *following)]
        elif (name := _flagfile(text, following)) is None:
            expanded.append(Argument(text))
        elif name:
            expanded += _flags_in(_found(name, pathlib.Path()), ())
        else:
            raise UserError("--flagfile has no value.\nName a file of flags or a recipe.")
    return expanded


def recipes() -> dict[str, pathlib.Path]:
    """Returns the recipes that come with this program, by name."""
    # The recipes are inside trainer/ in a wheel, and beside trainer/ in a checkout.
    folders = (_PACKAGE / "recipes", _PACKAGE.parent / "flags")
    folder = next((each for each in folders if each.is_dir()), folders[0])
    return {path.stem: path for path in sorted(folder.glob(f"*{_SUFFIX}"))}


def _flagfile(text: str, following: Iterator[str]) -> str | None:
    """Returns the name of the flagfile if `text` is a --flagfile argument, or else None.

    If `text` is --flagfile alone, the name is the next argument, which is taken from `following`.
    """
    flag, equals, name = text.partition("=")
    if flag not in ("--flagfile", "-flagfile"):
        return None
    return os.path.expanduser(name.strip() if equals else next(following, ""))


def _found(name: str, folder: pathlib.Path) -> pathlib.Path:
    """Returns the path of the flagfile or recipe `name`; `folder` is searched first."""
    here = pathlib.Path(name)
    for path in (folder / here, here):
        if path.exists() and not (path.is_dir() and os.sep not in name):
            return path
    return recipes().get(name.removesuffix(_SUFFIX), here)


def _flags_in(path: pathlib.Path, around: tuple[pathlib.Path, ...]) -> Iterator[Argument]:
    """Yields the flags in `path`; `around` are the flagfiles that include it, outermost first."""
    real = pathlib.Path(os.path.realpath(path))  # Path.resolve fails if a link leads to itself.
    if real in around:
        raise UserError(
            f"the flagfile {path} includes itself, directly or through another flagfile.\n"
            f"Remove the line that names it from {around[-1]}."
        )
    lines = (line.strip() for line in _read(path).splitlines())
    flags = iter([line for line in lines if line and not line.startswith(("#", "//"))])
    for flag in flags:
        if (name := _flagfile(flag, flags)) is None:
            yield Argument(flag, path)
        else:
            yield from _flags_in(_found(name, path.parent), (*around, real))


def _read(path: pathlib.Path) -> str:
    remedy = "Name a file of flags."
    try:
        text = read_regular(path, _MOST_BYTES).decode("utf-8-sig")  # Skips a byte-order mark.
        if "\0" not in text:  # A path cannot hold a NUL byte.
            return text
        problem = "is not text: it has a NUL byte"
    except UnicodeDecodeError as error:
        problem = f"is not UTF-8 text: {error.reason} at byte {error.start}"
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
        if isinstance(error, NotRegularError):
            remedy = "Write the flags into a file, or give them on the command line."
        elif near := difflib.get_close_matches(path.stem, recipes(), n=3):
            remedy = f"Did you mean {' or '.join(near)}?"
    raise UserError(f"--flagfile={path} {problem}.\n{remedy}")
