"""Functions of epochs that know where they turn, so that many updates are counted at once."""

import dataclasses
import math
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class Curve:
    """A function of epochs; between its turns it only rises, only falls, or is constant.

    Attributes:
      value: epochs → its value.
      next_turn: epochs → the first later epochs at which it may jump or change its direction;
        infinite if there are none.
      is_flat: epochs → whether it is constant from there up to the next turn.
      rises: whether it rises anywhere.
    """

    value: Callable[[float], float]
    next_turn: Callable[[float], float]
    is_flat: Callable[[float], bool]
    rises: bool = False

    def __call__(self, epochs: float) -> float:
        return self.value(epochs)


def constant(value: float) -> Curve:
    """`value` throughout."""
    return Curve(lambda _: value, _never, lambda _: True)


def falling(value: Callable[[float], float]) -> Curve:
    """A function that falls throughout."""
    return Curve(value, _never, lambda _: False)


def rising_until(length: float, value: Callable[[float], float]) -> Curve:
    """A function that rises until `length` epochs, and is constant from there."""
    return Curve(
        value,
        lambda epochs: length if epochs < length else math.inf,
        lambda epochs: epochs >= length,
        rises=True,
    )


def _never(_: float) -> float:
    return math.inf
