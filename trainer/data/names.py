"""Names of classes and files: their places in a run's list, and how a message shows them."""

from collections.abc import Sequence

_SHOWN = 10


def places(names: Sequence[str], class_names: Sequence[str]) -> list[int]:
    """The place of each of `names` in `class_names`, or −1 if it is not there."""
    place_of = {name: place for place, name in enumerate(class_names)}
    return [place_of.get(name, -1) for name in names]


def printable(text: str) -> str:
    r"""The text with \n for a line feed and the like: a file's name may hold any bytes."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def few(names: Sequence[str]) -> str:
    """At most ten of the names, in words."""
    shown = ", ".join(map(printable, names[:_SHOWN]))
    return shown + (f" and {len(names) - _SHOWN} others" if len(names) > _SHOWN else "")


def logit_names(class_names: Sequence[str], logits: int) -> list[str]:
    """A printable name for each logit; those beyond the classes are called unused_<number>."""
    names = [printable(name) for name in class_names]
    return names + [f"unused_{number}" for number in range(len(names), logits)]
