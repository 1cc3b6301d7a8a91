"""Linear warm-up: a factor on the learning rate rises to 1 (Goyal et al. 2017, section 2.2)."""

from trainer.schedule.curve import Curve, rising_until


def linear(length: float, start: float) -> Curve:
    """Returns the curve of a factor that rises from `start` to 1 over `length` epochs.

    >>> factor = linear(length=5, start=0.1)
    >>> [round(factor(epochs), 4) for epochs in (0, 2.5, 5)]
    [0.1, 0.55, 1.0]
    """

    def factor(epochs: float) -> float:
        return 1.0 if epochs >= length else start + (1 - start) * epochs / length

    return rising_until(length, factor)
