"""Conversion of a Target to a Setting: the batch size changes first, and the learning rate last.

ε is the learning rate, B the batch size, m the momentum, N the number of training examples and g
the noise scale. If a Target requests a lower g, `realize` first grows B up to its limit, in
multiples of the smallest batch. It then lowers m if --momentum_to is set. ε takes the rest of the
change. With linear scaling, every update has the requested g ≈ ε N / (B (1 − m)). With another
scaling, the ratio `Scaling.kept` takes the place of g. Later, a warm-up may lower ε, and g with it.
"""

import dataclasses
import math

from trainer.schedule.noise_scale import LINEAR, Scaling, Setting


@dataclasses.dataclass(frozen=True)
class Target:
    """Request of a schedule or a controller for one update.

    Attributes:
      noise_scale_factor: requested g divided by its initial value, in (0, 1].
      momentum: requested m, which `realize` may lower.
      min_batch_size: lower limit on B, in examples, before `realize` rounds B down. If the limit
        makes B larger, ε changes by the scaling rule.
    """

    noise_scale_factor: float
    momentum: float
    min_batch_size: int


@dataclasses.dataclass(frozen=True)
class BatchLimits:
    """Limits to the growth of the batch.

    Attributes:
      smallest: smallest batch of the run, in examples. It divides all batches except `largest`.
      largest: largest batch of the run, in examples; the initial batch if the batch does not grow.
      batch_anneal_floor: threshold on `noise_scale_factor`. As the factor falls from 1 to the
        threshold, the batch grows. As it falls further, ε falls. If the threshold is 1, ε takes
        the whole change. If the threshold is 0, the batch grows until it has `largest` examples.
      scaling: dependence of ε on the batch size and the momentum.
      lowest_momentum: value to which m may fall once the batch has `largest` examples; None if m
        may not fall.
    """

    smallest: int
    largest: int
    batch_anneal_floor: float
    scaling: Scaling = LINEAR
    lowest_momentum: float | None = None


def realize(target: Target, start: Setting, limits: BatchLimits) -> Setting:
    """Returns the Setting that realizes `target` in a run with the initial Setting `start`."""
    scaling = limits.scaling
    # `spent` is the part of the noise-scale factor that the batch should realize. ε realizes the
    # rest, noise_scale_factor / spent. ε also realizes any part of `spent` that the batch and the
    # momentum cannot realize.
    spent = max(target.noise_scale_factor, limits.batch_anneal_floor)
    momentum = target.momentum
    room = scaling.one_minus_momentum(momentum) / scaling.one_minus_momentum(start.momentum)
    ideal = start.batch_size * scaling.growth(1 / (room * spent))
    size = on_grid(max(ideal, target.min_batch_size), limits)
    if limits.lowest_momentum is not None and ideal > size == limits.largest:
        # The batch cannot grow by the whole factor, so 1 − m rises by the missing factor.
        fitting = 1 - (1 - momentum) * ideal / size
        momentum = min(momentum, max(limits.lowest_momentum, fitting))
        room = scaling.one_minus_momentum(momentum) / scaling.one_minus_momentum(start.momentum)
    grown = (size / start.batch_size) ** scaling.exponent
    rate = start.learning_rate * target.noise_scale_factor * grown * room
    # Rounding errors must not change ε: 0.1 · 5 · (1 / 5) must be exactly 0.1.
    exact = math.isclose(rate, start.learning_rate, rel_tol=1e-12)
    return Setting(size, start.learning_rate if exact else rate, momentum)


def on_grid(ideal: float, limits: BatchLimits) -> int:
    """Returns `ideal` rounded down to a multiple of the smallest batch, or the largest batch.

    An `ideal` within a relative distance of 1e-9 of a multiple counts as the multiple, because of
    rounding errors. The result is at least the smallest batch and at most the largest batch.
    """
    if _snap(ideal) >= limits.largest:
        return limits.largest
    return max(1, math.floor(_snap(ideal / limits.smallest))) * limits.smallest


def _snap(value: float) -> float:
    """Returns the nearest integer if `value` is within a relative 1e-9 of it, else `value`."""
    nearest = round(value)
    return nearest if math.isclose(value, nearest, rel_tol=1e-9) else value
