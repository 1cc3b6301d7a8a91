"""Curves: functions of epochs with known turns, so that span.py can count many updates at once."""

import dataclasses
import math
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class Curve:
    """Function of epochs that only rises, only falls or is constant between two turns.

    Attributes:
      value: function from epochs to the value of the curve.
      next_turn: function from epochs to the next turn, in epochs, or to infinity. At a turn, the
        curve may jump or change direction.
      is_flat: function of epochs; True if the curve is constant from there to the next turn.
      rises: True if the curve rises anywhere.
    """

    value: Callable[[float], float]
    next_turn: Callable[[float], float] = lambda _: math.inf
    is_flat: Callable[[float], bool] = lambda _: False
    rises: bool = False

    def __call__(self, epochs: float) -> float:
        return self.value(epochs)


def rising_until(length: float, value: Callable[[float], float]) -> Curve:
    """Returns the curve of a function that rises for `length` epochs and is then constant."""
    return Curve(
        value,
        lambda epochs: length if epochs < length else math.inf,
        lambda epochs: epochs >= length,
        rises=True,
    )
