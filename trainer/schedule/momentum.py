"""Momentum warm-up: m and B rise together, so that neither g nor ε moves.

The velocity starts at zero, and a high momentum fills it over about B/(N(1 − m)) epochs, in which
the run moves less than it should (Smith et al. 2018, section 5.2). From a lower m and, at the same
g and ε, a smaller B, it is filled soon, and the early epochs have updates enough.
"""

from trainer.schedule.curve import Curve, rising_until
from trainer.schedule.layout import divisors
from trainer.schedule.noise_scale import Setting
from trainer.schedule.realize import BatchLimits, on_grid


def first_batch(start: Setting, momentum: float, ghost_batch_size: int) -> int:
    """The batch that has the noise scale and ε of `start` at a `momentum` up to that of `start`.

    It is the nearest below that divides the batch of `start` and that ghost batches divide; or the
    nearest above, where no momentum of 0 or more goes with those below.
    """
    without = start.batch_size * (1 - start.momentum)  # momentum
    ideal = without / (1 - momentum)
    divide = [n * ghost_batch_size for n in divisors(start.batch_size // ghost_batch_size)]
    sizes = [size for size in divide if size >= without * (1 - 1e-9)]
    return max((size for size in sizes if size <= ideal * (1 + 1e-9)), default=sizes[0])


def warmup(length: float, start: Setting, limits: BatchLimits) -> Curve:
    """m at a number of epochs: that for which B is the smallest at 0 and, in equal steps of that
    size, the batch of `start` from `length` on; B (1 − m) stays."""

    def momentum(epochs: float) -> float:
        if epochs >= length:
            return start.momentum
        ramp = limits.smallest + (start.batch_size - limits.smallest) * epochs / length
        return max(0.0, 1 - (1 - start.momentum) * start.batch_size / on_grid(ramp, limits))

    return rising_until(length, momentum)
