"""Parses --profile_updates, the range of updates to profile."""

import dataclasses
import re


@dataclasses.dataclass(frozen=True)
class ProfileRange:
    """Updates from `first` to `last`, both included; the first update of a run has number 1."""

    first: int
    last: int

    def __contains__(self, update: int) -> bool:
        return self.first <= update <= self.last

    def __str__(self) -> str:
        return f"{self.first}:{self.last}"


def parse(text: str) -> ProfileRange:
    """Returns the range that `text` describes, such as 100:110.

    Raises:
      ValueError: if `text` is not such a range.
    """
    found = re.fullmatch(r"([1-9]\d{0,17}):([1-9]\d{0,17})", text)
    if not found or int(found[1]) > int(found[2]):
        raise ValueError("must be the first and the last update, such as 100:110")
    return ProfileRange(int(found[1]), int(found[2]))


def problem(text: str) -> str:
    """Returns why `text` cannot be a value of --profile_updates; "" if it can."""
    try:
        parse(text)
    except ValueError as error:
        return str(error)
    return ""
