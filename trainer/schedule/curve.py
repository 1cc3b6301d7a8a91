"""Curves: functions of epochs with known turns, so that many updates can be counted at once."""

import dataclasses
import math
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class Curve:
    """Function of epochs that only rises, only falls or is constant between its turns.

    Attributes:
      value: function from epochs to the value of the curve.
      next_turn: function from epochs to the next point, in epochs, at which the curve may jump or
        change direction; infinite if there is none.
      is_flat: function of epochs; True if the curve is constant from there to the next turn.
      rises: True if the curve rises anywhere.
    """

    value: Callable[[float], float]
    next_turn: Callable[[float], float]
    is_flat: Callable[[float], bool]
    rises: bool = False

    def __call__(self, epochs: float) -> float:
        return self.value(epochs)


def constant(value: float) -> Curve:
    """Returns the curve that is `value` at every epoch."""
    return Curve(lambda _: value, _never, lambda _: True)


def falling(value: Callable[[float], float]) -> Curve:
    """Returns the curve of `value`, which must never rise."""
    return Curve(value, _never, lambda _: False)


def rising_until(length: float, value: Callable[[float], float]) -> Curve:
    """Returns the curve of `value`, which rises for `length` epochs and is constant afterwards."""
    return Curve(
        value,
        lambda epochs: length if epochs < length else math.inf,
        lambda epochs: epochs >= length,
        rises=True,
    )


def _never(_: float) -> float:
    return math.inf
