"""Turns keyword arguments into the words of a command line, which `config` then checks.

So Python and the command line share one declaration of flags: names, types, ranges and messages.
"""

import csv
import difflib
import io
import numbers
import operator
import os
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from trainer.config.flags import FLAGS, Config
from trainer.errors import UserError

_TYPES = typing.get_type_hints(Config)
# Names that are not keyword arguments, and what to do instead.
_INSTEAD = {
    "flagfile": "name the file or recipe with recipe=",
    "format": "leave it out, because Python gets values and not text",
    "local_dir": "use the command `fetch`",
    "runs": "use the command `report`",
}


def words(
    function: str,
    flags: Mapping[str, object],
    recipe: str | os.PathLike[str] | None = None,
    own: Collection[str] = (),
) -> list[str]:
    """Returns the command line that has the keyword arguments `flags`.

    For example, {"epochs": 2, "deterministic": True} becomes ["--epochs=2", "--deterministic"].

    Args:
      function: name of the public function, for messages.
      flags: values by flag; a flag whose value is None is left out.
      recipe: name of a recipe, or path of a flagfile, whose flags come first; None: no recipe.
      own: names of the function's other arguments, which a message may suggest.

    Raises:
      UserError: if a name is not a flag, or a value has a type that its flag does not take.
    """
    found = []
    if recipe is not None:
        if not isinstance(recipe, (str, os.PathLike)):
            raise UserError(
                f"recipe={_shown(recipe)} is not the name of a recipe or the path of a flagfile: "
                "give it as text, as in recipe='fashion_mnist_grow'."
            )
        found.append(f"--flagfile={_text(recipe)}")
    for name, value in flags.items():
        if name in _INSTEAD:
            raise UserError(f"{function} has no argument {name}: {_INSTEAD[name]}.")
        if name not in FLAGS:
            near = difflib.get_close_matches(name, [*FLAGS, *own], n=3)
            listed = "`python -m trainer train --help` lists the flags."
            hint = f"did you mean {' or '.join(near)}?" if near else listed
            raise UserError(f"{function} has no argument {name!r}: {hint}")
        if value is not None:
            found += _words_of(name, value)
    return found


def _words_of(name: str, value: object) -> list[str]:
    """Returns the words that give the flag `name` a value other than None."""
    kind = _TYPES[name]
    if kind is bool:
        if str(getattr(value, "dtype", "")) == "bool":  # numpy's bool is not Python's.
            value = bool(value)
        if not isinstance(value, bool):
            raise _wrong(name, value, "True or False")
        return [f"--{name}" if value else f"--no{name}"]
    if FLAGS[name].repeated:
        return [f"--{name}={each}" for each in _texts(name, value)]
    if kind == tuple[str, ...]:
        return [f"--{name}={_joined(_texts(name, value))}"]
    convert, what = _CONVERTERS.get(kind, (_text, "text"))
    try:
        return [f"--{name}={convert(value)}"]
    except TypeError as error:
        raise _wrong(name, value, what) from error


def _integer(value: Any) -> str:
    if isinstance(value, bool):
        raise TypeError
    return str(operator.index(value))


def _number(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError
    # An integer stays as it is, because a large one is not a float.
    return str(int(value)) if isinstance(value, numbers.Integral) else repr(float(value))


def _text(value: Any) -> str:
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError
    text = os.fsdecode(os.fspath(value))
    if "\0" in text:
        raise UserError(f"{_shown(text)} has a NUL character, which no flag can have: remove it.")
    return text


# Maps the type of a flag to the function that writes a value of this type, and the type's name.
_CONVERTERS: Mapping[Any, tuple[Callable[[Any], str], str]] = {
    int: (_integer, "an integer"),
    int | None: (_integer, "an integer"),
    float: (_number, "a number"),
    float | None: (_number, "a number"),
}


def _texts(name: str, value: object) -> list[str]:
    """Returns the items of a list flag as text; a text alone is a list as on a command line."""
    if isinstance(value, (str, os.PathLike)):
        return [_text(value)]
    if not isinstance(value, Sequence):
        raise _wrong(name, value, "a list")

    def item(each: object) -> str:
        return _text(each) if isinstance(each, (str, os.PathLike)) else _number(each)

    try:
        return [item(each) for each in value]
    except TypeError as error:
        raise _wrong(name, value, "a list of text or numbers") from error


def _joined(texts: Sequence[str]) -> str:
    """Returns the items as absl reads a list: a comma inside an item is quoted."""
    if len(texts) == 1:
        return texts[0]
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(texts)
    return line.getvalue()


def _wrong(name: str, value: object, what: str) -> UserError:
    kind = type(value).__name__
    return UserError(f"{name}={_shown(value)} has the type {kind}: give {what}.")


def _shown(value: object) -> str:
    """Returns the value as text of at most 60 characters, which an array of a million needs."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
