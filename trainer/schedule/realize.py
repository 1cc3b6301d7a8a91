"""Conversion of a Target to a Setting, which spends the noise scale on the batch size first.

`realize` is the only source of Settings. A schedule or a controller sets the noise-scale factor and
the momentum. `realize` grows the batch on its grid up to the limit, then lowers the momentum if
--momentum_to allows it, and gives ε the exact remainder. So every update has the wanted
g ≈ ε N / (B (1 − m)).
"""

import dataclasses
import math

from trainer.schedule.noise_scale import LINEAR, Scaling, Setting


@dataclasses.dataclass(frozen=True)
class Target:
    """Request of a schedule or a controller.

    Attributes:
      noise_scale_factor: g over its value at the start, in (0, 1].
      momentum: m.
      min_batch_size: smallest batch size in examples; ε rises when this makes the batch larger.
    """

    noise_scale_factor: float
    momentum: float
    min_batch_size: int


@dataclasses.dataclass(frozen=True)
class BatchLimits:
    """Limits to the growth of the batch.

    Attributes:
      smallest: smallest batch of the run, in examples; the others are multiples of it.
      largest: B_max in examples; the initial batch size if the batch does not grow.
      batch_anneal_floor: noise-scale factor down to which the batch anneals; ε anneals below it.
        1: the learning rate alone anneals. 0: the batch alone anneals, up to `largest`.
      scaling: dependence of ε on the batch size and the momentum.
      lowest_momentum: value down to which m anneals once the batch is largest; None: m does not.
    """

    smallest: int
    largest: int
    batch_anneal_floor: float
    scaling: Scaling = LINEAR
    lowest_momentum: float | None = None


def realize(target: Target, start: Setting, limits: BatchLimits) -> Setting:
    """Returns the Setting that meets `target`, relative to the run's `start`."""
    scaling = limits.scaling
    # The ideal B is the one at which ε is unchanged: g ∝ ε / (B (1 − m)).
    spent = max(target.noise_scale_factor, limits.batch_anneal_floor)
    momentum = target.momentum
    room = scaling.one_minus_momentum(momentum) / scaling.one_minus_momentum(start.momentum)
    ideal = start.batch_size * scaling.growth(1 / (room * spent))
    size = on_grid(max(ideal, target.min_batch_size), limits)
    if limits.lowest_momentum is not None and ideal > size == limits.largest:
        # The momentum makes up for the growth that the batch lacks: (1 − m) ∝ 1/g.
        fitting = 1 - (1 - momentum) * ideal / size
        momentum = min(momentum, max(limits.lowest_momentum, fitting))
        room = scaling.one_minus_momentum(momentum) / scaling.one_minus_momentum(start.momentum)
    grown = (size / start.batch_size) ** scaling.exponent
    rate = start.learning_rate * target.noise_scale_factor * grown * room
    # An unchanged ε is unchanged to the last bit: 0.1 · 5 · (1 / 5) must be 0.1.
    exact = math.isclose(rate, start.learning_rate, rel_tol=1e-12)
    return Setting(size, start.learning_rate if exact else rate, momentum)


def on_grid(ideal: float, limits: BatchLimits) -> int:
    """Returns `ideal` rounded down to a multiple of the smallest batch, at most the largest."""
    if _snap(ideal) >= limits.largest:
        return limits.largest
    return max(1, math.floor(_snap(ideal / limits.smallest))) * limits.smallest


def _snap(value: float) -> float:
    """Returns the nearest integer if within 1e-9 of it: 0.2 · 0.2 is not 0.04 in floats."""
    nearest = round(value)
    return nearest if math.isclose(value, nearest, rel_tol=1e-9) else value
