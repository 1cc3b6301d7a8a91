"""Curves: functions of epochs that may jump or change direction only at known epochs, the turns.

Because the turns are known, span.py counts many updates without a loop over the updates.
"""

import dataclasses
import math
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class Curve:
    """Function of epochs that only rises, only falls or is constant between consecutive turns.

    Attributes:
      value: function from epochs to the value of the curve.
      next_turn: function from epochs to the epoch of the next turn, or infinity if there is none.
      is_flat: function from epochs to a bool, which is True if the curve is constant from these
        epochs to the next turn.
      rises: True if the curve rises between some of its turns. A jump at a turn does not count.
    """

    value: Callable[[float], float]
    next_turn: Callable[[float], float] = lambda _: math.inf
    is_flat: Callable[[float], bool] = lambda _: False
    rises: bool = False

    def __call__(self, epochs: float) -> float:
        return self.value(epochs)


def rising_until(length: float, value: Callable[[float], float]) -> Curve:
    """Returns the curve of `value`, which rises for `length` epochs and is constant afterwards."""
    return Curve(
        value,
        lambda epochs: length if epochs < length else math.inf,
        lambda epochs: epochs >= length,
        rises=True,
    )
