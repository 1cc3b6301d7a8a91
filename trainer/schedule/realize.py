"""Conversion of a Target to a Setting: the batch size anneals first, then momentum, then ε.

ε is the learning rate, B the batch size, m the momentum, N the number of training examples and g
the noise scale. `realize` grows the batch up to its limit, in multiples of the smallest batch. It
then lowers the momentum if --momentum_to allows that, and ε realizes the rest of the change. With
linear scaling, every update has the requested g ≈ ε N / (B (1 − m)). With another scaling, the
ratio `Scaling.kept` takes the place of g. After `realize`, a warm-up may lower ε and so g.
"""

import dataclasses
import math

from trainer.schedule.noise_scale import LINEAR, Scaling, Setting


@dataclasses.dataclass(frozen=True)
class Target:
    """Request of a schedule or a controller for one update.

    Attributes:
      noise_scale_factor: g divided by its initial value, in (0, 1].
      momentum: m of the update.
      min_batch_size: smallest B in examples, before `realize` rounds B down. If the minimum makes
        the batch larger, ε changes by the scaling rule.
    """

    noise_scale_factor: float
    momentum: float
    min_batch_size: int


@dataclasses.dataclass(frozen=True)
class BatchLimits:
    """Limits to the growth of the batch.

    Attributes:
      smallest: smallest batch of the run, in examples. All batches but `largest` are multiples.
      largest: B_max in examples; the initial batch size if the batch does not grow.
      batch_anneal_floor: threshold on the noise-scale factor. While the factor falls to the
        threshold, the batch grows; below the threshold, ε falls. At 1, ε alone anneals. At 0, the
        batch alone anneals until it has `largest` examples.
      scaling: dependence of ε on the batch size and the momentum.
      lowest_momentum: value to which m may fall once the batch has `largest` examples, or None if m
        does not anneal.
    """

    smallest: int
    largest: int
    batch_anneal_floor: float
    scaling: Scaling = LINEAR
    lowest_momentum: float | None = None


def realize(target: Target, start: Setting, limits: BatchLimits) -> Setting:
    """Returns the Setting that meets `target`, relative to the run's `start`."""
    scaling = limits.scaling
    # `spent` is the part of the noise-scale factor that the batch should realize. ε realizes the
    # rest, noise_scale_factor / spent, and what neither the batch nor the momentum can realize.
    spent = max(target.noise_scale_factor, limits.batch_anneal_floor)
    momentum = target.momentum
    room = scaling.one_minus_momentum(momentum) / scaling.one_minus_momentum(start.momentum)
    ideal = start.batch_size * scaling.growth(1 / (room * spent))
    size = on_grid(max(ideal, target.min_batch_size), limits)
    if limits.lowest_momentum is not None and ideal > size == limits.largest:
        # The batch cannot grow further, so 1 − m rises by the missing factor.
        fitting = 1 - (1 - momentum) * ideal / size
        momentum = min(momentum, max(limits.lowest_momentum, fitting))
        room = scaling.one_minus_momentum(momentum) / scaling.one_minus_momentum(start.momentum)
    grown = (size / start.batch_size) ** scaling.exponent
    rate = start.learning_rate * target.noise_scale_factor * grown * room
    # Rounding errors must not change ε: 0.1 · 5 · (1 / 5) must be exactly 0.1.
    exact = math.isclose(rate, start.learning_rate, rel_tol=1e-12)
    return Setting(size, start.learning_rate if exact else rate, momentum)


def on_grid(ideal: float, limits: BatchLimits) -> int:
    """Returns the batch size for `ideal`: a multiple of the smallest batch, or the largest batch.

    The size is rounded down, except that an `ideal` within 1e-9 of a multiple counts as the
    multiple. The result is never below the smallest batch or above the largest.
    """
    if _snap(ideal) >= limits.largest:
        return limits.largest
    return max(1, math.floor(_snap(ideal / limits.smallest))) * limits.smallest


def _snap(value: float) -> float:
    """Returns the nearest integer if its relative distance is at most 1e-9; otherwise `value`."""
    nearest = round(value)
    return nearest if math.isclose(value, nearest, rel_tol=1e-9) else value
