"""Controller of --anneal=measured: the batch grows with the measured gradient noise scale B_simple.

While the batch size B is below B_simple, a larger batch reaches the same loss in far fewer updates,
with only a few more examples. B_simple rises as the loss falls (McCandlish et al. 2018, 1812.06162,
section 2). So the controller raises B as B_simple rises, but never above B_simple. B never shrinks,
so it cannot oscillate.
"""

import dataclasses
import math
from typing import Any

from trainer.errors import UserError
from trainer.schedule.controller import Controller, remembered
from trainer.schedule.gradient_noise import GradientNoise
from trainer.schedule.layout import default_micro_batch_size, divisors
from trainer.schedule.realize import BatchLimits, Target, on_grid


@dataclasses.dataclass
class NoiseController(Controller):
    """Multiplies the batch size B by `threshold` once B_simple is at least `threshold` times B.

    >>> controller = NoiseController(2.0, BatchLimits(128, 1024, 0.0), every=15_000, batch_size=128)
    >>> controller.measured(GradientNoise(1000, trace=300, square=1, weight=1))
    'the gradient noise scale is 300 / 1 = 300 examples, at least 2 times the batch of 128'
    >>> controller.batch_size
    256

    Attributes:
      threshold: factor by which B grows once B_simple / B is at least this factor.
      limits: limits to the growth of the batch.
      every: examples between two decisions.
      batch_size: lower limit on B in the next updates; the only state of the controller.
    """

    threshold: float
    limits: BatchLimits
    every: int = dataclasses.field()  # field() removes the default that Controller gives.
    batch_size: int = dataclasses.field()

    def changed(self, target: Target) -> Target:
        return dataclasses.replace(target, min_batch_size=self.batch_size)

    def measured(self, noise: GradientNoise) -> str | None:
        """Grows the batch or keeps it; returns the reason if it grows, and otherwise None."""
        scale, wanted = noise.scale, self.threshold * self.batch_size
        # Until the measurements span `noise.horizon`, one update changes their averages too much.
        # The tolerance is for rounding: after one horizon, the sum of the weights is 1 − 1/e.
        if scale is None or noise.weight < (1 - 1 / math.e) * (1 - 1e-9):
            return None
        # `on_grid` rounds down to a multiple of the smallest batch. Without the `max`, the batch
        # could not grow if `threshold` is small.
        grown = on_grid(max(wanted, self.batch_size + self.limits.smallest), self.limits)
        if grown == self.batch_size or scale < max(wanted, grown):
            return None
        old, self.batch_size = self.batch_size, grown
        return (
            f"the gradient noise scale is {noise.trace / noise.weight:.4g} / "
            f"{noise.square / noise.weight:.4g} = {scale:.4g} examples, at least "
            f"{self.threshold:g} times the batch of {old}"
        )

    def state_dict(self) -> dict[str, Any]:
        return {"batch_size": self.batch_size}

    def load_state_dict(self, memory: dict[str, Any]) -> None:
        self.batch_size = remembered(memory, "batch_size", "measured")

    def take_over(self, memory: dict[str, Any]) -> None:
        self.load_state_dict(memory)
        self.batch_size = on_grid(self.batch_size, self.limits)  # The fork's own limits.


def micro_batch(batch_size: int, replicas: int, ghost_batch_size: int, most: int | None) -> int:
    """Returns the micro-batch size of a run with --anneal=measured.

    The size is `most` if `most` is set. Otherwise, it is the largest multiple of the ghost batch
    that splits the batch into two or more equal parts and is at most `default_micro_batch_size`.
    The measured noise depends on the micro-batch size, and the batch sizes depend on the measured
    noise. Results must not depend on `replicas`, so the micro-batch size does not depend on
    `replicas` either. If --max_batch_size is not a multiple of the size, the largest batch has
    smaller micro-batches; they do not matter, because the batch does not grow any further.

    >>> micro_batch(batch_size=256, replicas=2, ghost_batch_size=32, most=None)
    128

    Raises:
      UserError: if the batch cannot be split in this way, or the replicas cannot share the
        micro-batches evenly.
    """
    ghosts = batch_size // ghost_batch_size
    fit = [n * ghost_batch_size for n in divisors(ghosts) if 2 * n <= ghosts]
    if not fit:
        raise UserError(
            f"--anneal=measured needs two micro-batches or more, and the initial batch size "
            f"{batch_size} is one ghost batch: raise the batch size, or lower --ghost_batch_size."
        )
    default = default_micro_batch_size(ghost_batch_size)
    wanted = most or max(b for b in fit if b <= max(fit[0], default))
    if wanted not in fit:
        raise UserError(
            f"--micro_batch_size={wanted} does not fit twice or more into the initial batch of "
            f"{batch_size}, as --anneal=measured needs: use one of {', '.join(map(str, fit))}."
        )
    if batch_size // replicas % wanted:
        counts = ", ".join(map(str, divisors(batch_size // wanted)))
        shared = [b for b in fit if batch_size // replicas % b == 0]
        smaller = f", or --micro_batch_size={max(shared)}" if shared else ""
        raise UserError(
            f"{replicas} replicas cannot share the initial batch of {batch_size} in micro-batches "
            f"of {wanted}, which --anneal=measured needs: use one of {counts} replicas{smaller}."
        )
    return wanted
