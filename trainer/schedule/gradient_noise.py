"""The measured gradient noise scale, B_simple = tr Σ / ‖G‖²: McCandlish et al. 2018 (1812.06162).

Σ is the covariance of an example's gradient and G its mean, the gradient of the whole data. The
mean of n gradients has the expected squared norm ‖G‖² + tr Σ / n, so that two sizes give both: here
a micro-batch b and the whole batch B, which every update has at hand where it is of two
micro-batches or more (appendix A.1). Both are smoothed on their own, since the ratio of two noisy
numbers is biased.
"""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any


@dataclasses.dataclass
class GradientNoise:
    """Running means of tr Σ and ‖G‖².

    Attributes:
      horizon: examples after which a measurement counts 1/e.
      trace: of the covariance, smoothed; biased towards 0 as long as `weight` is below 1.
      square: ‖G‖², likewise.
      weight: of all measurements together, up to 1.
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
        """Takes note of some updates; returns whether they could be measured.

        Where an update is one micro-batch, nothing can be, and nothing changes.

        Args:
          micro_batch_size: b.
          batch_size: B.
          part_squares: of each update, the mean over its micro-batches of ‖mean gradient‖².
          whole_squares: of each update, ‖mean gradient‖² of its batch.
        """
        b, size = micro_batch_size, batch_size
        if b == size:
            return False
        keep = math.exp(-size / self.horizon)
        for part, whole in zip(part_squares, whole_squares, strict=True):
            trace = (part - whole) / (1 / b - 1 / size)
            square = (size * whole - b * part) / (size - b)
            self.trace = keep * self.trace + (1 - keep) * trace
            self.square = keep * self.square + (1 - keep) * square
            self.weight = keep * self.weight + (1 - keep)
        return True

    @property
    def scale(self) -> float | None:
        """B_simple, in examples; infinite where no mean gradient is left; None: not measured."""
        if self.weight == 0:
            return None
        return self.trace / self.square if self.square > 0 else math.inf

    def state_dict(self) -> dict[str, Any]:
        """All but the horizon, as JSON can hold it."""
        return {"trace": self.trace, "square": self.square, "weight": self.weight}

    def load_state_dict(self, memory: dict[str, Any]) -> None:
        """Goes on from a memory; an empty one is from before any measurement."""
        if not memory:
            return
        self.trace, self.square = memory["trace"], memory["square"]
        self.weight = memory["weight"]
