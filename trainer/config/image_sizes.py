"""Parses --image_sizes: side lengths of training images, each with the epoch at which it begins."""

from collections.abc import Sequence

EXAMPLE = "128@0%,160@40%,192@75%"
_LARGEST = 2**16


def problem(texts: Sequence[str]) -> str:
    """Returns why the value `texts` of --image_sizes cannot be used; "" if it can.

    >>> problem(["128@0%", "192@75%"])
    ''
    >>> problem(["128@10%"])
    'must begin at 0, as in 128@0%,160@40%,192@75%'
    """
    if not texts:
        return ""
    starts = []
    for text in texts:
        size, at, start = text.partition("@")
        epochs = _number(start)
        if not at or not size.strip().isdecimal() or epochs is None:
            return f"has {text!r}; it must be a list of SIZE@EPOCH or SIZE@PERCENT, as in {EXAMPLE}"
        # Python converts at most 4,300 digits to an integer.
        if len(size) > 9 or not 1 <= int(size) <= _LARGEST:
            return f"has {text[:60]!r}; a size must be from 1 to {_LARGEST} pixels"
        starts.append(epochs)
    if starts[0]:
        return f"must begin at 0, as in {EXAMPLE}"
    return ""


def sizes(texts: Sequence[str]) -> list[int]:
    """Returns the side lengths in pixels, in the order of `texts`.

    >>> sizes(["128@0%", "160@40%", "192@75%"])
    [128, 160, 192]
    """
    return [int(text.partition("@")[0]) for text in texts]


def starts(texts: Sequence[str], total: float) -> list[float]:
    """Returns the epoch at which each size begins; `total` is the length of the run in epochs.

    >>> starts(["128@0%", "160@40%", "192@15"], total=20)
    [0.0, 8.0, 15.0]
    """
    found = []
    for text in texts:
        start = text.partition("@")[2]
        value = _number(start)
        assert value is not None  # `problem` has refused values without a number.
        found.append(total * value / 100 if start.strip().endswith("%") else value)
    return found


def _number(text: str) -> float | None:
    """Returns `text` as a number, and ignores a "%" at the end.

    Returns None if `text` is not a number, or if the number is negative or not finite.
    """
    try:
        value = float(text.strip().removesuffix("%"))
    except ValueError:
        return None
    return value if 0 <= value < float("inf") else None
