"""Parses flags whose value is a range of numbers, such as 100:110."""

import dataclasses
import re

from trainer.config.declaration import Problem


@dataclasses.dataclass(frozen=True)
class NumberRange:
    """Numbers from `first` to `last`, both included; the smallest possible number is 1."""

    first: int
    last: int

    def __contains__(self, number: int) -> bool:
        return self.first <= number <= self.last

    def __str__(self) -> str:
        return f"{self.first}:{self.last}"

    def numbers(self) -> range:
        """Returns all numbers of the range."""
        return range(self.first, self.last + 1)


def parse(text: str) -> NumberRange:
    """Returns the range that `text` describes, such as 100:110.

    Raises:
      ValueError: if `text` is not such a range.
    """
    found = re.fullmatch(r"([1-9]\d{0,17}):([1-9]\d{0,17})", text)
    if not found or int(found[1]) > int(found[2]):
        raise ValueError(f"{text!r} is not a range such as 100:110")
    return NumberRange(int(found[1]), int(found[2]))


def must_be_range(meaning: str, most: int = 10**18 - 1) -> Problem:
    """Returns a Problem that rejects all but ranges with numbers up to `most`."""

    def problem(text: str) -> str:
        try:
            fits = parse(text).last <= most
        except ValueError:
            fits = False
        return "" if fits else f"must be {meaning}"

    return problem
