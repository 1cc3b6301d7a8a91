"""Replaces the flagfiles of a command line by the flags in these files.

A flagfile has one flag per line; lines that start with # or // are comments. A flagfile is
looked up in the current folder, and then among this program's recipes, such as fashion_mnist_grow.
If another flagfile names it, the folder of that other flagfile is searched first.
"""

import dataclasses
import difflib
import os
import pathlib
from collections.abc import Iterator, Sequence

from trainer.errors import UserError
from trainer.system.regular_file import NotRegularError, read_regular

_SUFFIX = ".flags"
# Largest flagfile that is read; the flagfile of a run has 3 kB.
_MOST_BYTES = 2**20
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


@dataclasses.dataclass(frozen=True)
class Expanded:
    """Command line after flagfiles are replaced by their flags.

    Attributes:
      arguments: all arguments in order, with the flags of a flagfile in place of its name.
      flagfiles: the texts of all flagfiles.
    """

    arguments: Sequence[Argument]
    flagfiles: Sequence[str]


def expand(arguments: Sequence[str]) -> Expanded:
    """Replaces --flagfile=x, -flagfile=x and --flagfile x by the flags in the file x.

    Raises:
      UserError: if a flagfile cannot be read, or names itself directly or through others.
    """
    texts: list[str] = []
    expanded: list[Argument] = []
    following = iter(arguments)
    for text in following:
        if text == "--":
            expanded += [Argument(each) for each in (text, *following)]
        elif (name := _flagfile(text, following)) is None:
            expanded.append(Argument(text))
        else:
            if not name:
                raise UserError("--flagfile names no file.\nName a file of flags or a recipe.")
            path = _found(name, pathlib.Path())
            expanded += _flags_in(path, (), texts)
    return Expanded(expanded, texts)


def recipes() -> dict[str, pathlib.Path]:
    """Returns the recipes that come with this program, by name."""
    # The recipes are inside trainer/ in a wheel, and beside trainer/ in a checkout.
    folders = (_PACKAGE / "recipes", _PACKAGE.parent / "flags")
    folder = next((each for each in folders if each.is_dir()), folders[0])
    return {path.stem: path for path in sorted(folder.glob(f"*{_SUFFIX}"))}


def _flagfile(text: str, following: Iterator[str]) -> str | None:
    """Returns the flagfile that `text`, or the argument after a bare --flagfile, names; or None."""
    flag, equals, name = text.partition("=")
    if flag not in ("--flagfile", "-flagfile"):
        return None
    return os.path.expanduser(name.strip() if equals else next(following, ""))


def _found(name: str, folder: pathlib.Path) -> pathlib.Path:
    """Returns the path of a flagfile or recipe, looked up in `folder` first."""
    here = pathlib.Path(name)
    for path in (folder / here, here):
        if path.exists() and not (path.is_dir() and os.sep not in name):
            return path
    return recipes().get(name.removesuffix(_SUFFIX), here)


def _flags_in(
    path: pathlib.Path, around: tuple[pathlib.Path, ...], texts: list[str]
) -> Iterator[Argument]:
    """Yields the flags of a flagfile; `around` is the chain of flagfiles that led to this one."""
    if path.resolve() in around:
        raise UserError(
            f"--flagfile={path} names itself, directly or through another flagfile.\n"
            f"Remove that line from {around[-1]}."
        )
    text = _read(path)
    texts.append(text)
    lines = (line.strip() for line in text.splitlines())
    flags = iter([line for line in lines if line and not line.startswith(("#", "//"))])
    for flag in flags:
        if (name := _flagfile(flag, flags)) is None:
            yield Argument(flag, path)
        else:
            yield from _flags_in(_found(name, path.parent), (*around, path.resolve()), texts)


def _read(path: pathlib.Path) -> str:
    try:
        text = read_regular(path, _MOST_BYTES).decode("utf-8-sig")  # Skips a byte-order mark.
    except NotRegularError as error:
        raise UserError(
            f"--flagfile={path} cannot be read: {error.strerror}.\n"
            "Write the flags into a file, or give them on the command line."
        ) from error
    except OSError as error:
        near = difflib.get_close_matches(path.stem, recipes(), n=3)
        remedy = f"Did you mean {' or '.join(near)}?" if near else "Name a file of flags."
        raise UserError(f"--flagfile={path} cannot be read: {error.strerror}.\n{remedy}") from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"--flagfile={path} is not UTF-8 text: {error.reason} at byte {error.start}.\n"
            "Name a file of flags."
        ) from error
    if "\0" in text:  # A path cannot hold a NUL byte.
        raise UserError(f"--flagfile={path} is not text: it has a NUL byte.\nName a file of flags.")
    return text
