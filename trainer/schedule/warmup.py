"""Linear warm-up of the learning rate, a factor on ε alone (Goyal et al. 2017, section 2.2)."""

from trainer.schedule.curve import Curve, rising_until


def linear(length: float, start: float) -> Curve:
    """`start` at 0 epochs, 1 from `length` epochs on, linear between; constant 1 for length 0."""

    def factor(epochs: float) -> float:
        return 1.0 if epochs >= length else start + (1 - start) * epochs / length

    return rising_until(length, factor)
