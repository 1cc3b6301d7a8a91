"""Momentum warm-up: the momentum and the batch size rise together, at constant noise scale.

Here, m is the momentum, B the batch size, g the noise scale, ε the learning rate and N the number
of training examples. The optimizer's velocity starts at zero and builds up in about B/(N(1 − m))
epochs. If m is high, these are many epochs, in which the parameters move too little (Smith et al.
2018, section 5.2). A warm-up starts at a lower m, which needs a smaller B for the same g and ε. So
the velocity builds up in fewer epochs, and the first epochs have more updates.
"""

from trainer.schedule.curve import Curve, rising_until
from trainer.schedule.layout import divisors
from trainer.schedule.noise_scale import Setting
from trainer.schedule.realize import BatchLimits, on_grid


def first_batch(start: Setting, momentum: float, ghost_batch_size: int) -> int:
    """Returns the batch size at which a lower `momentum` has about the g and ε of `start`.

    The exact solution is B (1 − m) / (1 − momentum), with the B and m of `start`. The candidates
    are the multiples of the ghost batch that divide B and are at least B (1 − m). Smaller batches
    would need a negative momentum. The result is the largest candidate that is not above the exact
    solution. If all candidates are above it, the result is the smallest candidate.

    >>> first_batch(Setting(3200, 0.5, 0.98), momentum=0.9, ghost_batch_size=32)
    640
    """
    at_zero_momentum = start.batch_size * (1 - start.momentum)
    ideal = at_zero_momentum / (1 - momentum)
    divide = [n * ghost_batch_size for n in divisors(start.batch_size // ghost_batch_size)]
    sizes = [size for size in divide if size >= at_zero_momentum * (1 - 1e-9)]
    return max((size for size in sizes if size <= ideal * (1 + 1e-9)), default=sizes[0])


def warmup(length: float, start: Setting, limits: BatchLimits) -> Curve:
    """Returns the curve from epochs to m, at constant B (1 − m).

    Over `length` epochs, B rises from `limits.smallest` to the batch size of `start`. B is always a
    multiple of `limits.smallest`.

    >>> m = warmup(4, Setting(3200, 0.5, 0.98), BatchLimits(640, 5120, batch_anneal_floor=0.0))
    >>> [round(m(epochs), 4) for epochs in (0, 1, 4)]
    [0.9, 0.95, 0.98]
    """

    def momentum(epochs: float) -> float:
        if epochs >= length:
            return start.momentum
        ramp = limits.smallest + (start.batch_size - limits.smallest) * epochs / length
        return max(0.0, 1 - (1 - start.momentum) * start.batch_size / on_grid(ramp, limits))

    return rising_until(length, momentum)
