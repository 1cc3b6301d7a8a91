"""How far the noise scale has come down: pure functions of epochs with values in (0, 1].

Each builder returns `anneal(epochs)`. What realises the value, batch size or learning rate, is not
decided here but in realize.py.
"""

import math
from collections.abc import Callable, Sequence

from trainer.config.flags import Config
from trainer.errors import UserError
from trainer.schedule import curve
from trainer.schedule.curve import Curve
from trainer.schedule.noise_scale import Setting

# The lowest value: a learning rate of 0 trains nothing, and a batch over 0 is no number.
LOWEST = 1e-9
# Epochs by which k · N / N may fall short of k in floats: less than an example for N to a billion.
_ROUNDING = 1e-9


def constant() -> Curve:
    """1 throughout."""
    return curve.constant(1.0)


def step(points: Sequence[float], factor: float) -> Curve:
    """factor^−j from the j-th of `points`, in epochs, on."""
    steps = [point - _ROUNDING for point in points]
    return Curve(
        lambda epochs: max(factor ** -sum(epochs >= each for each in steps), LOWEST),
        lambda epochs: next((each for each in steps if each > epochs), math.inf),
        lambda _: True,
    )


def cosine(total: float) -> Curve:
    """(1 + cos(π epochs/total)) / 2; Loshchilov & Hutter 2017 (1608.03983), eq. 5, one period."""
    return curve.falling(
        lambda epochs: max((1 + math.cos(math.pi * min(epochs / total, 1))) / 2, LOWEST)
    )


def polynomial(total: float, power: float) -> Curve:
    """(1 − epochs/total)^power; You et al. 2017 (1708.03888) use power 2."""
    return curve.falling(lambda epochs: max((1 - min(epochs / total, 1)) ** power, LOWEST))


def exponential(length: float, factor: float) -> Curve:
    """factor^−(epochs/length): divided by `factor` over every `length` epochs."""
    return curve.falling(lambda epochs: max(math.exp(-math.log(factor) * epochs / length), LOWEST))


def ramp(total: float, start: float, scale: str) -> Curve:
    """From `start` up to 1 at `total` epochs, in equal steps or, geometric, in equal factors."""

    def value(epochs: float) -> float:
        share = min(epochs / total, 1)
        return start ** (1 - share) if scale == "geometric" else start + (1 - start) * share

    return curve.rising_until(total, value)


def cyclical(
    length: float, trough: float, scale: Callable[[int, float], float], decay: float = 0.0
) -> Curve:
    """Smith 2015 (1506.01186), section 3: a triangle between `trough` and 1 over `length` epochs.

    For e epochs and half a cycle s: cycle = ⌊1 + e/(2s)⌋, x = |e/s − 2 cycle + 1| and
    value = trough + (1 − trough) max(0, 1 − x) scale, with `scale` a function of (cycle, e) in
    (0, 1]. It starts at the trough, and 1 is the peak.

    Args:
      length: of a whole cycle, in epochs.
      trough: lowest value.
      scale: of a cycle.
      decay: what `scale` loses within a cycle, exp(-decay · epochs).
    """
    half = length / 2

    def value(epochs: float) -> float:
        cycle = math.floor(1 + epochs / length)
        x = abs(epochs / half - 2 * cycle + 1)
        return trough + (1 - trough) * max(0.0, 1 - x) * scale(cycle, epochs)

    def next_turn(epochs: float) -> float:
        begun = math.floor(epochs / half) * half
        # On the way up, t · exp(-decay · t) falls from t = 1 / decay on.
        early = begun + 1 / decay if decay > 1 / half and math.floor(epochs / half) % 2 == 0 else 0
        return early if early > epochs else begun + half

    return Curve(value, next_turn, lambda _: False, rises=True)


def points(texts: Sequence[str], total: float) -> list[float]:
    """Points of a run of `total` epochs, in epochs, from texts such as `60` or `30%`.

    Raises:
      UserError: for what is no number, is out of order, or lies outside of the run.
    """
    found: list[float] = []
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
        if found and value <= found[-1]:
            raise UserError(
                f"--anneal_epochs={','.join(texts)} is out of order at {text}: "
                "give points from early to late."
            )
        found.append(value)
    return found


def from_config(config: Config, start: Setting, examples: int) -> Curve:
    """The annealing that the flags ask for, of a run from `start` over N = `examples`.

    Raises:
      UserError: where --anneal_epochs or --min_learning_rate does not fit --anneal, or is wrong in
        itself.
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
            f"{start.learning_rate:g}, the peak of the cycles: lower it, or raise the other."
        )

    def scale(cycle: int, epochs: float) -> float:
        if config.cycle_factor_per == "cycle":
            return config.cycle_factor ** (cycle - 1)
        # An iteration is an update of the initial batch, so that position stays the only clock.
        return config.cycle_factor ** (epochs * examples / start.batch_size)

    decay = 0.0
    if config.cycle_factor_per == "update":
        decay = -math.log(config.cycle_factor) * examples / start.batch_size
    return cyclical(config.cycle_epochs, lowest / start.learning_rate, scale, decay)
