"""Measured gradient noise scale, B_simple = tr Σ / ‖G‖²: McCandlish et al. 2018 (1812.06162).

Σ is the covariance of the gradients of single examples; G is the mean of these gradients over the
whole dataset. The mean gradient of n examples has the expected squared norm ‖G‖² + tr Σ / n. So the
squared norms for two values of n determine tr Σ and ‖G‖² (appendix A.1). If a batch of B examples
consists of two or more micro-batches of b examples, an update measures the norms for n = b and for
n = B. A ratio of two noisy numbers is biased, so tr Σ and ‖G‖² are averaged before the division.
"""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any


@dataclasses.dataclass
class GradientNoise:
    """Exponential moving averages of tr Σ and ‖G‖².

    Attributes:
      horizon: number of examples after which the weight of a measurement has fallen to 1/e.
      trace: weighted sum of tr Σ; `trace / weight` is the average.
      square: weighted sum of ‖G‖², with the same weights.
      weight: sum of the weights of all measurements, which approaches 1.
    """

    horizon: float
    trace: float = 0.0
    square: float = 0.0
    weight: float = 0.0

    def add(
        self,
        micro_batch_size: int,
        batch_size: int,
        part_squares: Iterable[float],
        whole_squares: Iterable[float],
    ) -> bool:
        """Adds the measurements of some updates; if b = B, adds nothing and returns False.

        If b = B, the two norms are equal and cannot determine tr Σ and ‖G‖².

        Args:
          micro_batch_size: b, in examples.
          batch_size: B, in examples.
          part_squares: for each update, the squared norm of the mean gradient of a micro-batch,
            averaged over the micro-batches.
          whole_squares: for each update, the squared norm of the mean gradient of the batch.
        """
        b, B = micro_batch_size, batch_size
        if b == B:
            return False
        keep = math.exp(-B / self.horizon)
        for part, whole in zip(part_squares, whole_squares, strict=True):
            trace = (part - whole) / (1 / b - 1 / B)
            square = (B * whole - b * part) / (B - b)
            self.trace = keep * self.trace + (1 - keep) * trace
            self.square = keep * self.square + (1 - keep) * square
            self.weight = keep * self.weight + (1 - keep)
        return True

    @property
    def scale(self) -> float | None:
        """B_simple in examples; infinite if `square` is not positive; None without measurements."""
        if self.weight == 0:
            return None
        return self.trace / self.square if self.square > 0 else math.inf

    def state_dict(self) -> dict[str, Any]:
        """Returns all fields except the horizon, as values that JSON can hold."""
        return {"trace": self.trace, "square": self.square, "weight": self.weight}

    def load_state_dict(self, memory: dict[str, Any]) -> None:
        """Restores the saved fields; does nothing if `memory` is empty, as in a new run."""
        if memory:
            self.trace, self.square = memory["trace"], memory["square"]
            self.weight = memory["weight"]
