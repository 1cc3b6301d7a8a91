"""Declarations of flags: each once, as a field of a dataclass, with all that is known of it.

The field's annotation is the flag's type; `tuple[str, ...]` is a list with commas.
"""

import dataclasses
import enum
from collections.abc import Callable, Sequence
from typing import Any

# The commands that train a run, or predict what training does.
TRAINING = ("plan", "train", "range_test", "sweep")
# The commands that read what a run has learned.
READING = ("evaluate", "export")

# Returns why a value cannot be used, after the flag's name and the value; "" if it can.
Problem = Callable[[Any], str]


class Scope(enum.Enum):
    """The thing a flag belongs to; it decides whether a run may be resumed with another value."""

    LEARNED = "the run: changes what is learned, and stays as it was at the start"
    FREE = "the run, but may differ when it is resumed"
    MACHINE = "the machine: may differ, and is not taken over from a run that is evaluated"
    CALL = "one call, and is not kept with the run"


@dataclasses.dataclass(frozen=True)
class Flag:
    """One flag.

    Attributes:
      group: heading of the help that it stands under.
      help: its quantity, unit, and what it means if it is not set.
      scope: the thing it belongs to.
      commands: names of the commands that take it.
      choices: the values that it can have; () for others than names.
      problem: why a value cannot be used.
      decides: value of --anneal with which a flag of scope FREE changes what is learned.
      repeated: whether it may be given several times, each with one of its values.
      formerly: an earlier name, which command lines may still use; "" if there is none.
    """

    group: str
    help: str
    scope: Scope
    commands: Sequence[str]
    choices: Sequence[str]
    problem: Problem
    decides: str | None
    repeated: bool
    formerly: str


def usable(_: Any) -> str:
    """Finds no problem with any value."""
    return ""


def must_be(meaning: str, condition: Callable[[Any], bool]) -> Problem:
    """Returns the problem of values for which `condition` is false."""
    return lambda value: "" if condition(value) else f"must be {meaning}"


def at_least(least: float) -> Problem:
    """Returns the problem of numbers that are below `least`, infinite or NaN."""
    return must_be(f"{least:g} or above", lambda value: least <= value < float("inf"))


POSITIVE = must_be("above 0", lambda value: 0 < value < float("inf"))
FRACTION = must_be("from 0 to below 1", lambda value: 0 <= value < 1)
# Beyond, an epoch or the whole run has no position in 64 bits.
EPOCHS = must_be("above 0, from 1e-9 to 1e9", lambda value: 1e-9 <= value <= 1e9)
# Beyond, float32 parameters overflow in the first update.
RATE = must_be("above 0 and at most 1e30", lambda value: 0 < value <= 1e30)
FACTOR = must_be("above 1 and at most 1e9", lambda value: 1 < value <= 1e9)


@dataclasses.dataclass(frozen=True)
class Group:
    """Flags that stand together in the help; declares them with what they share.

    Attributes:
      title: heading of the help.
      scope: of its flags, unless one says another.
      commands: that take its flags, unless one says others.
    """

    title: str
    scope: Scope
    commands: Sequence[str]

    def __call__(
        self,
        default: Any,
        help_text: str,
        *,
        problem: Problem = usable,
        choices: Sequence[str] = (),
        scope: Scope | None = None,
        commands: Sequence[str] | None = None,
        decides: str | None = None,
        repeated: bool = False,
        formerly: str = "",
    ) -> Any:
        """Declares a flag of this group: the value of a field of a dataclass."""
        flag = Flag(
            self.title,
            help_text,
            scope or self.scope,
            self.commands if commands is None else commands,
            choices,
            problem,
            decides,
            repeated,
            formerly,
        )
        return dataclasses.field(default=default, metadata={"flag": flag})


def flags_of(declared: type) -> dict[str, Flag]:
    """Returns the flags that a dataclass declares, by name, in its order."""
    return {
        field.name: field.metadata["flag"]
        for field in dataclasses.fields(declared)
        if "flag" in field.metadata
    }
