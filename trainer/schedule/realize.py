"""Conversion of a Target to a Setting: the batch size anneals first, then momentum, then ε.

A schedule or a controller requests a noise-scale factor and a momentum. `realize` grows the batch
up to the limit, in multiples of the smallest batch. It then lowers the momentum if --momentum_to
allows that, and solves for ε. So every update has the requested g ≈ ε N / (B (1 − m)), except
while a warm-up factor lowers ε.
"""

import dataclasses
import math

from trainer.schedule.noise_scale import LINEAR, Scaling, Setting


@dataclasses.dataclass(frozen=True)
class Target:
    """Request of a schedule or a controller.

    Attributes:
      noise_scale_factor: g divided by its initial value, in (0, 1].
      momentum: m.
      min_batch_size: smallest batch size in examples; if it makes the batch larger, ε rises too.
    """

    noise_scale_factor: float
    momentum: float
    min_batch_size: int


@dataclasses.dataclass(frozen=True)
class BatchLimits:
    """Limits to the growth of the batch.

    Attributes:
      smallest: smallest batch of the run, in examples; all but `largest` are multiples of it.
      largest: B_max in examples; the initial batch size if the batch does not grow.
      batch_anneal_floor: lowest noise-scale factor that the batch size realizes by growing; ε
        realizes the rest.
        1: ε alone anneals. 0: the batch alone anneals until it is `largest`.
      scaling: dependence of ε on the batch size and the momentum.
      lowest_momentum: lower bound of m; m falls towards it once the batch is `largest`. None: m
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
    # `spent` is the part of the factor that the batch realizes. At the ideal B, ε only has to
    # realize the rest, noise_scale_factor / spent, since g ∝ ε / (B (1 − m)).
    spent = max(target.noise_scale_factor, limits.batch_anneal_floor)
    momentum = target.momentum
    room = scaling.one_minus_momentum(momentum) / scaling.one_minus_momentum(start.momentum)
    ideal = start.batch_size * scaling.growth(1 / (room * spent))
    size = on_grid(max(ideal, target.min_batch_size), limits)
    if limits.lowest_momentum is not None and ideal > size == limits.largest:
        # The momentum falls where the batch cannot grow further: (1 − m) ∝ 1/g.
        fitting = 1 - (1 - momentum) * ideal / size
        momentum = min(momentum, max(limits.lowest_momentum, fitting))
        room = scaling.one_minus_momentum(momentum) / scaling.one_minus_momentum(start.momentum)
    grown = (size / start.batch_size) ** scaling.exponent
    rate = start.learning_rate * target.noise_scale_factor * grown * room
    # Rounding alone must not change ε: 0.1 · 5 · (1 / 5) must be exactly 0.1.
    exact = math.isclose(rate, start.learning_rate, rel_tol=1e-12)
    return Setting(size, start.learning_rate if exact else rate, momentum)


def on_grid(ideal: float, limits: BatchLimits) -> int:
    """Returns `ideal` rounded down to a multiple of the smallest batch, at most the largest."""
    if _snap(ideal) >= limits.largest:
        return limits.largest
    return max(1, math.floor(_snap(ideal / limits.smallest))) * limits.smallest


def _snap(value: float) -> float:
    """Returns the nearest integer if `value` differs from it by rounding only (up to 1e-9)."""
    nearest = round(value)
    return nearest if math.isclose(value, nearest, rel_tol=1e-9) else value
