"""Annealing curves: the noise scale relative to its initial value, as a function of epochs.

The value of a curve is in (0, 1]. realize.py then divides the annealing between the batch size and
the learning rate.
"""

import math
from collections.abc import Callable, Sequence

from trainer.config.flags import Config
from trainer.errors import UserError
from trainer.schedule import curve
from trainer.schedule.curve import Curve
from trainer.schedule.noise_scale import Setting

# Lowest value of a curve: 0 would make the learning rate 0 or the batch size infinite.
LOWEST = 1e-9
# A step comes this many epochs early, so that float rounding cannot delay it by an update. For N
# below 10⁹ this is less than one example.
_ROUNDING = 1e-9


def constant() -> Curve:
    """Returns a curve that is 1 at every epoch.

    >>> constant()(7)
    1.0
    """
    return curve.constant(1.0)


def step(points: Sequence[float], factor: float) -> Curve:
    """Returns a curve that starts at 1 and is divided by `factor` at each of `points`, in epochs.

    >>> anneal = step([60, 120], factor=5)
    >>> [round(anneal(epochs), 4) for epochs in (0, 60, 120)]
    [1, 0.2, 0.04]
    """
    steps = [point - _ROUNDING for point in points]
    return Curve(
        lambda epochs: max(factor ** -sum(epochs >= point for point in steps), LOWEST),
        lambda epochs: next((point for point in steps if point > epochs), math.inf),
        lambda _: True,
    )


def cosine(total: float) -> Curve:
    """Returns (1 + cos(π epochs/total)) / 2: Loshchilov & Hutter 2017 (1608.03983), eq. 5.

    The curve falls once, without restarts.

    >>> anneal = cosine(total=90)
    >>> [round(anneal(epochs), 4) for epochs in (0, 30, 45)]
    [1.0, 0.75, 0.5]
    """
    return curve.falling(
        lambda epochs: max((1 + math.cos(math.pi * min(epochs / total, 1))) / 2, LOWEST)
    )


def polynomial(total: float, power: float) -> Curve:
    """Returns (1 − epochs/total)^power; You et al. 2017 (1708.03888) use power 2.

    >>> anneal = polynomial(total=90, power=2)
    >>> [round(anneal(epochs), 4) for epochs in (0, 45, 81)]
    [1.0, 0.25, 0.01]
    """
    return curve.falling(lambda epochs: max((1 - min(epochs / total, 1)) ** power, LOWEST))


def exponential(length: float, factor: float) -> Curve:
    """Returns factor^−(epochs/length), which is divided by `factor` every `length` epochs.

    >>> anneal = exponential(length=30, factor=10)
    >>> [round(anneal(epochs), 4) for epochs in (0, 30, 60)]
    [1.0, 0.1, 0.01]
    """
    return curve.falling(lambda epochs: max(math.exp(-math.log(factor) * epochs / length), LOWEST))


def ramp(total: float, start: float, scale: str) -> Curve:
    """Returns a curve that rises from `start` to 1 at `total` epochs, as a range test needs.

    The rise is exponential if `scale` is "geometric", otherwise linear.

    >>> anneal = ramp(total=2, start=0.01, scale="geometric")
    >>> [round(anneal(epochs), 4) for epochs in (0, 1, 2)]
    [0.01, 0.1, 1.0]
    """

    def value(epochs: float) -> float:
        share = min(epochs / total, 1)
        return start ** (1 - share) if scale == "geometric" else start + (1 - start) * share

    return curve.rising_until(total, value)


def cyclical(
    length: float, trough: float, scale: Callable[[int, float], float], decay: float = 0.0
) -> Curve:
    """Returns the triangular cycles of Smith 2015 (1506.01186), section 3.

    A cycle rises from `trough` to 1 and falls back. At e epochs, with half a cycle of s epochs:
    cycle = ⌊1 + e/(2s)⌋, x = |e/s − 2 cycle + 1|, and
    value = trough + (1 − trough) max(0, 1 − x) scale(cycle, e).

    >>> anneal = cyclical(length=4, trough=0.25, scale=lambda cycle, epochs: 1.0)
    >>> [anneal(epochs) for epochs in (0, 1, 2, 4)]
    [0.25, 0.625, 1.0, 0.25]

    Args:
      length: epochs of a whole cycle.
      trough: lowest value.
      scale: function of (cycle, e) with values in (0, 1], which scales the height of the cycle.
      decay: rate at which `scale` falls within a cycle, as exp(−decay · epochs); 0 if it is
        constant within a cycle.
    """
    half = length / 2

    def value(epochs: float) -> float:
        cycle = math.floor(1 + epochs / length)
        x = abs(epochs / half - 2 * cycle + 1)
        return trough + (1 - trough) * max(0.0, 1 - x) * scale(cycle, epochs)

    def next_turn(epochs: float) -> float:
        begun = math.floor(epochs / half) * half
        # On the rising half, the height at t epochs into the cycle is proportional to
        # t · exp(−decay · t), which has its maximum at t = 1 / decay.
        early = begun + 1 / decay if decay > 1 / half and math.floor(epochs / half) % 2 == 0 else 0
        return early if early > epochs else begun + half

    return Curve(value, next_turn, lambda _: False, rises=True)


def points(texts: Sequence[str], total: float) -> list[float]:
    """Returns annealing points in epochs, read from texts such as `60` or `30%` (of `total`).

    >>> points(["30%", "60"], total=90)
    [27.0, 60.0]

    Raises:
      UserError: if a text is not a number, is out of order, or lies outside the run.
    """
    parsed: list[float] = []
    for text in texts:
        try:
            value = total * float(text[:-1]) / 100 if text.endswith("%") else float(text)
        except ValueError as error:
            raise UserError(
                f"--anneal_epochs has {text!r}: write epochs or percents, as in 30%,60%,80%."
            ) from error
        if not 0 < value < total:
            raise UserError(
                f"--anneal_epochs has {text}, which is not inside the run of {total:g} epochs: "
                "give points above 0 and before its end, or a longer --epochs."
            )
        if parsed and value <= parsed[-1]:
            raise UserError(
                f"--anneal_epochs={','.join(texts)} is out of order at {text}: "
                "give points from early to late."
            )
        parsed.append(value)
    return parsed


def from_config(config: Config, start: Setting, examples: int) -> Curve:
    """Returns the curve of --anneal for a run with initial Setting `start` and N = `examples`.

    >>> anneal = from_config(Config(anneal="cosine", epochs=90), Setting(128, 0.1, 0.9), 50_000)
    >>> round(anneal(45), 4)
    0.5

    Raises:
      UserError: if --anneal_epochs or --min_learning_rate is invalid or does not fit --anneal.
    """
    at = points(config.anneal_epochs, config.epochs)
    wanted = {"step": "one point or more", "exponential": "one length"}.get(config.anneal, "none")
    fits = {"step": len(at) >= 1, "exponential": len(at) == 1}.get(config.anneal, not at)
    if not fits:
        given = ",".join(config.anneal_epochs) or "nothing"
        raise UserError(f"--anneal={config.anneal} takes {wanted} in --anneal_epochs, not {given}.")
    match config.anneal:
        case "step":
            return step(at, config.anneal_factor)
        case "cosine":
            return cosine(config.epochs)
        case "polynomial":
            return polynomial(config.epochs, config.anneal_power)
        case "exponential":
            return exponential(at[0], config.anneal_factor)
        case "cyclical":
            return _cyclical(config, start, examples)
        case "range_test":
            return ramp(config.epochs, config.range_from / config.range_to, config.range_scale)
    return constant()


def _cyclical(config: Config, start: Setting, examples: int) -> Curve:
    lowest = config.min_learning_rate
    if lowest is None:
        lowest = start.learning_rate / 4
    if lowest >= start.learning_rate:
        raise UserError(
            f"--min_learning_rate={lowest:g} is not below the initial learning rate "
            f"{start.learning_rate:g}, the peak of the cycles: lower it, or raise the initial rate."
        )

    def scale(cycle: int, epochs: float) -> float:
        if config.cycle_factor_per == "cycle":
            return config.cycle_factor ** (cycle - 1)
        # The exponent counts updates as if every update had the initial batch size, so the curve
        # depends on the position alone.
        return config.cycle_factor ** (epochs * examples / start.batch_size)

    decay = 0.0
    if config.cycle_factor_per == "update":
        decay = -math.log(config.cycle_factor) * examples / start.batch_size
    return cyclical(config.cycle_epochs, lowest / start.learning_rate, scale, decay)
