"""Declares each flag as a field of a dataclass, with its default and the properties of `Flag`.

The annotation of a field is the type of its flag. The value of a flag of type `tuple[str, ...]` is
a comma-separated list. If such a flag is `repeated`, it is instead given once for each value.
"""

import dataclasses
import enum
from collections.abc import Callable, Mapping, Sequence
from typing import Any

# Commands that train, or that predict what training does.
TRAINING = ("plan", "train", "range_test", "sweep")
# Commands that work with the examples of a dataset; `predict` works with the user's own pictures.
EXAMPLES = (*TRAINING, "evaluate", "export")
# All commands that use the model of a run.
MODEL = (*EXAMPLES, "predict")

# Maps a flag's value to the reason why the value cannot be used; "" if it can be used.
Problem = Callable[[Any], str]


class Scope(enum.Enum):
    """Owner of a flag's value; the scope tells whether a resumed run may change the value."""

    LEARNED = "the run: the flag changes what is learned, and a resumed run must have its value"
    FREE = "the run: a resumed run may have another value"
    MACHINE = "the machine: a resumed run, evaluate, export and predict may each have another"
    CALL = "one call: the value is not kept with the run"


def must_be(meaning: str, condition: Callable[[Any], bool]) -> Problem:
    """Returns a Problem that rejects values for which `condition` is false."""
    return lambda value: "" if condition(value) else f"must be {meaning}"


def at_least(least: float) -> Problem:
    """Returns a Problem that rejects numbers below `least`, infinity and NaN."""
    return must_be(f"{least:g} or above", lambda value: least <= value < float("inf"))


ANYTHING = must_be("anything", lambda _: True)
POSITIVE = must_be("above 0", lambda value: 0 < value < float("inf"))
FRACTION = must_be("from 0 to below 1", lambda value: 0 <= value < 1)
# Within these limits, 64 bits can count the examples that a run consumes. They can also count the
# intervals in a run, for example between evaluations: at most 1e9 / 1e-9 = 1e18 intervals.
EPOCHS = must_be("above 0, from 1e-9 to 1e9", lambda value: 1e-9 <= value <= 1e9)
# Within these limits, predicted times are finite numbers.
SPEED = must_be("above 0, from 1e-9 to 1e18", lambda value: 1e-9 <= value <= 1e18)
DURATION = must_be("from 0 to 1e12", lambda value: 0 <= value <= 1e12)
# With a learning rate above 1e30, float32 parameters could overflow in the first update. With lower
# rates than 1e-30, squares of their ratios, which --scaling=sqrt needs, could become 0.
RATE = must_be("above 0, from 1e-30 to 1e30", lambda value: 1e-30 <= value <= 1e30)
FACTOR = must_be("above 1 and at most 1e9", lambda value: 1 < value <= 1e9)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flag:
    """Declaration of one flag.

    Attributes:
      group: heading of the flag's section of the help.
      help: help text, with the quantity, its unit, and the meaning of an unset flag.
      scope: owner of the value, which tells whether a resumed run may change the value.
      commands: names of the commands that take the flag.
      choices: all values that the flag accepts; () if its values cannot be listed.
      only: maps a choice to the commands that accept it; all commands accept all other choices.
      problem: function that returns why a value cannot be used, or "".
      decides: value of --anneal at which this flag changes what is learned, although its scope is
        FREE; None if there is no such value.
      repeated: whether the flag may be given several times, with one value each.
      formerly: earlier name of the flag, which is still accepted; "" if there is none.
    """

    group: str
    help: str
    scope: Scope
    commands: Sequence[str]
    choices: Sequence[str] = ()
    only: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    problem: Problem = ANYTHING
    decides: str | None = None
    repeated: bool = False
    formerly: str = ""

    def choices_of(self, command: str) -> list[str]:
        """Returns the choices that `command` accepts."""
        return [each for each in self.choices if command in self.only.get(each, (command,))]


@dataclasses.dataclass(frozen=True)
class Group:
    """Section of the help; a call of the group declares a flag in this section.

    Attributes:
      title: heading of the section.
      scope: scope of each flag in the section, unless the flag's declaration names another.
      commands: commands of each flag in the section, unless its declaration names others.
    """

    title: str
    scope: Scope
    commands: Sequence[str]

    def __call__(self, default: Any, help_text: str, **options: Any) -> Any:
        """Returns the dataclass field that declares a flag; `options` are other fields of Flag."""
        options = {"scope": self.scope, "commands": self.commands, **options}
        flag = Flag(group=self.title, help=help_text, **options)
        return dataclasses.field(default=default, metadata={"flag": flag})


def flags_of(declared: type) -> dict[str, Flag]:
    """Returns the flags of the dataclass `declared`, by name, in the order of its fields."""
    fields = dataclasses.fields(declared)
    return {each.name: each.metadata["flag"] for each in fields if "flag" in each.metadata}
