"""From Target to Setting: the noise scale is met by the batch first and the learning rate last.

In between, where a momentum that was raised may come down again, by that.

This is the only way to a Setting. A schedule or a controller says how far g shall have come down
and with which momentum; `realize` grows the batch as far as it may, on its grid, and gives ε
exactly what remains, so that g ≈ ε N / (B (1 − m)) is met at every update.
"""

import dataclasses
import math

from trainer.schedule.noise_scale import LINEAR, Scaling, Setting


@dataclasses.dataclass(frozen=True)
class Target:
    """What a schedule or a controller wants.

    Attributes:
      noise_scale_factor: g over its value at the start, in (0, 1].
      momentum: m.
      min_batch_size: examples that the batch shall have at the least, with ε raised for it.
    """

    noise_scale_factor: float
    momentum: float
    min_batch_size: int


@dataclasses.dataclass(frozen=True)
class BatchLimits:
    """How the batch may grow.

    Attributes:
      smallest: the run's smallest batch, in examples; others are whole multiples of it.
      largest: B_max, in examples; where nothing grows the batch, the one at the start.
      batch_floor: the noise-scale factor down to which the batch anneals; below it ε does. 1: the
        learning rate anneals alone; 0: the batch alone, up to `largest`.
      scaling: how ε follows it.
      lowest_momentum: down to which m anneals where the batch is largest, before ε; None: not.
    """

    smallest: int
    largest: int
    batch_anneal_floor: float
    scaling: Scaling = LINEAR
    lowest_momentum: float | None = None


def realize(target: Target, start: Setting, limits: BatchLimits) -> Setting:
    """The Setting that meets `target`, relative to the run's `start`."""
    scaling = limits.scaling
    # B that keeps ε: g ∝ ε / (B (1 − m)).
    spent = max(target.noise_scale_factor, limits.batch_anneal_floor)
    momentum = target.momentum
    room = scaling.one_minus_momentum(momentum) / scaling.one_minus_momentum(start.momentum)
    ideal = start.batch_size * scaling.growth(1 / (room * spent))
    size = on_grid(max(ideal, target.min_batch_size), limits)
    if limits.lowest_momentum is not None and ideal > size == limits.largest:
        # As far as the batch falls short: (1 − m) ∝ 1/g.
        fitting = 1 - (1 - momentum) * ideal / size
        momentum = min(momentum, max(limits.lowest_momentum, fitting))
        room = scaling.one_minus_momentum(momentum) / scaling.one_minus_momentum(start.momentum)
    grown = (size / start.batch_size) ** scaling.exponent
    rate = start.learning_rate * target.noise_scale_factor * grown * room
    # A size that keeps ε keeps it to the last bit: 0.1 stays 0.1 through 5 · (1 / 5).
    exact = math.isclose(rate, start.learning_rate, rel_tol=1e-12)
    return Setting(size, start.learning_rate if exact else rate, momentum)


def on_grid(ideal: float, limits: BatchLimits) -> int:
    """An ideal size rounded down to a multiple of the smallest, or the largest where it is met."""
    if _snap(ideal) >= limits.largest:
        return limits.largest
    return max(1, math.floor(_snap(ideal / limits.smallest))) * limits.smallest


def _snap(value: float) -> float:
    """To the nearest integer if within 1e-9 of it: 0.2 · 0.2 is not 0.04 in floats."""
    nearest = round(value)
    return nearest if math.isclose(value, nearest, rel_tol=1e-9) else value
