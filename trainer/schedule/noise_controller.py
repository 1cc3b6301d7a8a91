"""Measured control: the batch grows when the gradient noise scale has outgrown it.

McCandlish et al. 2018 (1812.06162), section 2: up to B ≈ B_simple, a larger batch saves updates for
few more examples, and B_simple rises as the loss falls. The batch follows from below, and never
shrinks, so that it cannot flap.
"""

import dataclasses
import math
from typing import Any

from trainer.errors import UserError
from trainer.schedule.controller import Controller, remembered
from trainer.schedule.gradient_noise import GradientNoise
from trainer.schedule.layout import default_micro_batch_size, divisors
from trainer.schedule.realize import BatchLimits, on_grid

# A mean over less than a horizon still follows single updates.
_ENOUGH = 1 - 1 / math.e


@dataclasses.dataclass
class NoiseController(Controller):
    """Its rules, and what it remembers.

    Attributes:
      threshold: the batch grows by this factor once B_simple is as many times the batch.
      limits: what sizes there are.
      every: examples between two decisions.
      batch_size: the smallest that it wants.
    """

    threshold: float
    limits: BatchLimits
    every: int = dataclasses.field()  # not Control's None
    batch_size: int = dataclasses.field()

    def measured(self, noise: GradientNoise) -> str | None:
        """Grows the batch, or leaves it."""
        scale, wanted = noise.scale, self.threshold * self.batch_size
        if scale is None or noise.weight < _ENOUGH:
            return None
        # By one multiple of the smallest where the factor does not reach the next.
        grown = on_grid(max(wanted, self.batch_size + self.limits.smallest), self.limits)
        if grown == self.batch_size or scale < max(wanted, grown):
            return None
        old, self.batch_size = self.batch_size, grown
        return (
            f"the gradient noise scale is {noise.trace / noise.weight:.4g} / "
            f"{noise.square / noise.weight:.4g} = {scale:.4g} examples, {self.threshold:g} times "
            f"the batch of {old} or more"
        )

    def state_dict(self) -> dict[str, Any]:
        return {"batch_size": self.batch_size}

    def load_state_dict(self, memory: dict[str, Any]) -> None:
        self.batch_size = remembered(memory, "batch_size", "measured")


def micro_batch(batch_size: int, replicas: int, ghost_batch_size: int, most: int | None) -> int:
    """The micro-batch that is compared with the batch from the first update on.

    It decides what is measured and so what is learned, and must not follow from the replicas: the
    user's `most`, or the largest up to half of the first batch.

    Raises:
      UserError: where there is none, or `replicas` cannot take it.
    """
    ghosts = batch_size // ghost_batch_size
    fit = [n * ghost_batch_size for n in divisors(ghosts) if 2 * n <= ghosts]
    if not fit:
        raise UserError(
            f"--anneal=measured compares the gradients of micro-batches, and the initial batch "
            f"size {batch_size} is one ghost batch: raise it, or lower --ghost_batch_size."
        )
    wanted = most or max(
        b for b in fit if b <= max(fit[0], default_micro_batch_size(ghost_batch_size))
    )
    if wanted not in fit:
        raise UserError(
            f"--anneal=measured compares micro-batches with the initial batch of {batch_size}: "
            f"--micro_batch_size={wanted} must be one of {', '.join(map(str, fit))}."
        )
    if batch_size // replicas % wanted:
        counts = ", ".join(map(str, divisors(batch_size // wanted)))
        raise UserError(
            f"--anneal=measured learns from micro-batches of {wanted}, which {replicas} replicas "
            f"cannot take from the initial batch of {batch_size}: use one of {counts} replicas."
        )
    return wanted
