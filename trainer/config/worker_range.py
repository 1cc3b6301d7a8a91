"""Parses --workers, the smallest and the largest number of workers of a run."""

import re


def parse(text: str) -> range:
    """Returns the numbers of workers that `text` describes, such as 1:8.

    Raises:
      ValueError: if `text` is not such a range.
    """
    found = re.fullmatch(r"([1-9]\d{0,4}):([1-9]\d{0,4})", text)
    if not found or int(found[1]) > int(found[2]):
        raise ValueError("must be the smallest and the largest number of workers, such as 1:8")
    return range(int(found[1]), int(found[2]) + 1)


def problem(text: str) -> str:
    """Returns why `text` cannot be a value of --workers; "" if it can."""
    try:
        parse(text)
    except ValueError as error:
        return str(error)
    return ""
