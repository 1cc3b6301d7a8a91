"""Reads JSON from outside this process, and checks that it has the declared structure.

A declaration is a `Kind`: a function that checks a parsed value and returns it. `fields` makes the
kind of an object from the kinds of its fields. If a field is missing, a number is too large, or the
file is not UTF-8, `read` raises a `DamagedError` that names the file, the field and the problem.
Undeclared fields are accepted, because a newer version may have written them.
"""

import json
import os
import reprlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from trainer.system.regular_file import read_regular, reading

Kind = Callable[[Any], Any]

MOST_BYTES = 2**24  # Most of this program's JSON files are much smaller.
_MOST_LOG_BYTES = 2**30  # A log of this size has 2.7 million lines of 400 bytes.
_MOST_LINE_BYTES = 2**16
LARGEST = 1e100  # Squares and sums of numbers up to this limit are finite, as matplotlib needs.
_LARGEST_INTEGER = 2**63 - 1


class WrongError(ValueError):
    """Raised if a value is not of its declared kind.

    Args:
      what: end of a sentence, such as "is missing"; the sentence begins with the value's place.
      place: path of the value in the JSON text, such as points[3].status; "" for the whole text.
    """

    def __init__(self, what: str, place: str = "") -> None:
        verb = what.startswith(("is ", "has "))
        super().__init__(f"{place} {what}" if place else f"it {what}" if verb else what)
        self.what, self.place = what, place

    def inside(self, place: str) -> "WrongError":
        """Returns a copy of this error with `place` put in front of its own place."""
        dot = "." if place and self.place and not self.place.startswith("[") else ""
        return WrongError(self.what, f"{place}{dot}{self.place}")


class DamagedError(Exception):
    """Raised if a file does not have its declared structure; `reason` names field and problem."""

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        super().__init__(f"{os.fspath(path)} is damaged: {reason}")
        self.reason = reason


def problem(error: DamagedError | OSError) -> str:
    """Returns the end of a message that begins with the file's path, such as "is damaged: ..."."""
    if isinstance(error, DamagedError):
        return f"is damaged: {error.reason}"
    return f"cannot be read: {error.strerror}"


def parsed(text: str | bytes, kind: Kind) -> Any:
    """Returns the value of a JSON text, checked by `kind`.

    Raises:
      WrongError: if the text is not JSON, or the value is not of that kind.
    """
    try:
        decoded = text if isinstance(text, str) else text.decode("utf-8-sig")
        value = json.loads(decoded, object_pairs_hook=_distinct)
    except UnicodeDecodeError as error:
        raise WrongError(f"is not UTF-8: byte {error.start} cannot be decoded") from error
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise WrongError(f"is not JSON: {error.msg} at {where}" if text else "is empty") from error
    except WrongError:
        raise
    except RecursionError as error:
        raise WrongError("is nested too deeply") from error
    except ValueError as error:  # Python refuses integers of over 4,300 digits.
        raise WrongError("has a number with too many digits") from error
    return kind(value)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise WrongError("is given twice", next(n for n in names if names.count(n) > 1))
    return found


def read(path: str | os.PathLike[str], kind: Kind, most_bytes: int = MOST_BYTES) -> Any:
    """Returns the value of a JSON file, checked by `kind`.

    Raises:
      DamagedError: if the file is not JSON, or the value is not of that kind.
      FileNotFoundError: if the file does not exist.
      OSError: if it cannot be read, is not a regular file, or is too large.
    """
    try:
        return parsed(read_regular(path, most_bytes), kind)
    except WrongError as error:
        raise DamagedError(path, str(error)) from error


def read_existing(
    path: str | os.PathLike[str], kind: Kind, most_bytes: int = MOST_BYTES
) -> Any | None:
    """Returns the same as `read`, but None if the file does not exist."""
    try:
        return read(path, kind, most_bytes)
    except FileNotFoundError:
        return None


def read_lines(path: str | os.PathLike[str], kind: Kind) -> Iterator[tuple[int, Any]]:
    """Yields the number of each line of a file, from 1, and the line's JSON value.

    If a line is wrong, a WrongError is yielded as its value. An unfinished object at the end of the
    file is left out: it only shows that the process that wrote the file was killed.

    Raises:
      FileNotFoundError: if the file does not exist.
      OSError: if it cannot be read, is not a regular file, or is too large.
    """
    with reading(path, _MOST_LOG_BYTES) as file:
        number = 0
        while line := file.readline(_MOST_LINE_BYTES):
            number += 1
            if line.endswith(b"\n"):
                try:
                    yield number, parsed(line, kind)
                except WrongError as error:
                    yield number, error
            elif len(line) == _MOST_LINE_BYTES:
                yield number, WrongError(f"has more than {_MOST_LINE_BYTES:,} bytes")
                while line and not line.endswith(b"\n"):
                    line = file.readline(_MOST_LINE_BYTES)
            elif not line.startswith(b"{"):
                yield number, WrongError("is not JSON")


def fields(required: Mapping[str, Kind], optional: Mapping[str, Kind] | None = None) -> Kind:
    """Returns the kind of objects with these fields; other fields are not checked.

    `required` and `optional` map the name of a field to the kind of its value.
    """

    def check(value: Any) -> dict[str, Any]:
        checked = {**_object(value)}
        for name, kind in {**required, **(optional or {})}.items():
            if name in checked:
                checked[name] = _inside(name, kind, checked[name])
            elif name in required:
                raise WrongError("is missing", name)
        return checked

    return check


def table_of(kind: Kind) -> Kind:
    """Returns the kind of objects with any field names and with values of `kind`."""

    return lambda value: {
        name: _inside(reprlib.repr(name), kind, each) for name, each in _object(value).items()
    }


def list_of(kind: Kind, length: int | None = None) -> Kind:
    """Returns the kind of lists of values of `kind`; if `length` is None, any length is right."""

    def check(value: Any) -> list[Any]:
        if not isinstance(value, list) or length not in (None, len(value)):
            raise WrongError("is not a list" + ("" if length is None else f" of {length}"))
        return [_inside(f"[{i}]", kind, item) for i, item in enumerate(value)]

    return check


def optional(kind: Kind) -> Kind:
    """Returns the kind of values that are null or of `kind`."""
    return lambda value: None if value is None else kind(value)


def one_of(*values: Any) -> Kind:
    """Returns the kind of strings that equal one of `values`."""

    def check(value: Any) -> Any:
        if not isinstance(value, str) or value not in values:
            raise WrongError(f"is {reprlib.repr(value)}, not one of {', '.join(values)}")
        return value

    return check


def integer(least: int = 0, most: int = _LARGEST_INTEGER) -> Kind:
    """Returns the kind of integers from `least` to `most`."""

    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise WrongError(f"is {reprlib.repr(value)}, not an integer from {least} to {most}")
        return value

    return check


def number(least: float = -LARGEST, most: float = LARGEST) -> Kind:
    """Returns the kind of finite numbers from `least` to `most`; they are returned as floats."""

    def check(value: Any) -> float:
        # The comparison comes first, because float() raises an error for a very large integer.
        if not _is_number(value) or not least <= value <= most:
            raise WrongError(f"is {reprlib.repr(value)}, not a number from {least:g} to {most:g}")
        return float(value)

    return check


def measured(value: Any) -> float:
    """Checks that the value is NaN, infinite, or from -LARGEST to LARGEST; returns a float."""
    if not _is_number(value) or (LARGEST < abs(value) < float("inf")):
        raise WrongError(f"is {reprlib.repr(value)}, not a number up to {LARGEST:g}")
    return float(value)


def boolean(value: Any) -> bool:
    """Checks that the value is true or false."""
    if not isinstance(value, bool):
        raise WrongError(f"is {reprlib.repr(value)}, not true or false")
    return value


def text(value: Any) -> str:
    """Checks that the value is a string that can be written as UTF-8."""
    return _encodable(value, "strict")


def file_name(value: Any) -> str:
    """Checks that the value is a file name; surrogates may stand for bytes that are not UTF-8."""
    return _encodable(value, "surrogateescape")


def anything(value: Any) -> Any:
    """Accepts every value."""
    return value


def _encodable(value: Any, errors: str) -> str:
    if not isinstance(value, str):
        raise WrongError(f"is {reprlib.repr(value)}, not a string")
    try:
        value.encode(errors=errors)
    except UnicodeEncodeError as error:
        raise WrongError(f"is {reprlib.repr(value)}, which has half of a character") from error
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise WrongError(f"is not an object of named values, but {reprlib.repr(value)}")
    return value


def _inside(place: str, kind: Kind, value: Any) -> Any:
    try:
        return kind(value)
    except WrongError as error:
        raise error.inside(place) from error
