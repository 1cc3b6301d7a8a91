"""Annealing curves: functions from epochs to the noise scale divided by its initial value.

noise_scale.py defines the noise scale. The values of a curve are in (0, 1]. realize.py turns them
into batch sizes, momenta and learning rates.
"""

import math
from collections.abc import Callable, Sequence

from trainer.config.flags import Config
from trainer.errors import UserError
from trainer.schedule.curve import Curve, rising_until
from trainer.schedule.noise_scale import Setting

# Lowest value of a curve: 0 would make the learning rate 0 or the batch size infinite.
LOWEST = 1e-9


def constant() -> Curve:
    """Returns the curve that is 1 at every epoch.

    >>> constant()(7)
    1.0
    """
    return Curve(lambda _: 1.0, is_flat=lambda _: True)


def step(points: Sequence[float], factor: float) -> Curve:
    """Returns a curve that is 1 at first, and is divided by `factor` at each epoch in `points`.

    >>> anneal = step([60, 120], factor=5)
    >>> [round(anneal(epochs), 4) for epochs in (0, 60, 120)]
    [1, 0.2, 0.04]
    """
    # Each step comes 10⁻⁹ epochs early, so that float rounding cannot delay it by an update. If
    # there are fewer than 10⁹ training examples, 10⁻⁹ epochs are less than one example.
    steps = [point - 1e-9 for point in points]
    return Curve(
        lambda epochs: max(factor ** -sum(epochs >= point for point in steps), LOWEST),
        lambda epochs: next((point for point in steps if point > epochs), math.inf),
        lambda _: True,
    )


def cosine(total: float) -> Curve:
    """Returns the curve (1 + cos(π · epochs/total)) / 2, which falls once and does not restart.

    Source: Loshchilov & Hutter 2017 (1608.03983), eq. 5.

    >>> anneal = cosine(total=90)
    >>> [round(anneal(epochs), 4) for epochs in (0, 30, 45)]
    [1.0, 0.75, 0.5]
    """
    return Curve(lambda epochs: max((1 + math.cos(math.pi * min(epochs / total, 1))) / 2, LOWEST))


def polynomial(total: float, power: float) -> Curve:
    """Returns the curve (1 − epochs/total)^power; You et al. 2017 (1708.03888) use power 2.

    >>> anneal = polynomial(total=90, power=2)
    >>> [round(anneal(epochs), 4) for epochs in (0, 45, 81)]
    [1.0, 0.25, 0.01]
    """
    return Curve(lambda epochs: max((1 - min(epochs / total, 1)) ** power, LOWEST))


def exponential(length: float, factor: float) -> Curve:
    """Returns factor^−(epochs/length), which falls to 1/factor of its value every `length` epochs.

    >>> anneal = exponential(length=30, factor=10)
    >>> [round(anneal(epochs), 4) for epochs in (0, 30, 60)]
    [1.0, 0.1, 0.01]
    """
    return Curve(lambda epochs: max(math.exp(-math.log(factor) * epochs / length), LOWEST))


def ramp(total: float, start: float, scale: str) -> Curve:
    """Returns the curve of --anneal=range_test, which rises from `start` to 1 in `total` epochs.

    The rise is exponential if `scale` is "geometric"; otherwise, it is linear.

    >>> anneal = ramp(total=2, start=0.01, scale="geometric")
    >>> [round(anneal(epochs), 4) for epochs in (0, 1, 2)]
    [0.01, 0.1, 1.0]
    """

    def value(epochs: float) -> float:
        share = min(epochs / total, 1)
        return start ** (1 - share) if scale == "geometric" else start + (1 - start) * share

    return rising_until(total, value)


def cyclical(
    length: float, trough: float, scale: Callable[[int, float], float], decay: float = 0.0
) -> Curve:
    """Returns the curve of the triangular cycles of Smith 2015 (1506.01186), section 3.

    Each cycle rises from `trough` and falls back to `trough`. Half a cycle has s epochs. After e
    epochs, `cycle` is the number of the current cycle, counted from 1, and x is the distance from
    the middle of this cycle, in half cycles:

        cycle = ⌊1 + e/(2s)⌋,    x = |e/s − 2 cycle + 1|,
        value = trough + (1 − trough) max(0, 1 − x) scale(cycle, e).

    >>> anneal = cyclical(length=4, trough=0.25, scale=lambda cycle, epochs: 1.0)
    >>> [anneal(epochs) for epochs in (0, 1, 2, 4)]
    [0.25, 0.625, 1.0, 0.25]

    Args:
      length: epochs of a whole cycle.
      trough: lowest value of the curve.
      scale: factor on the height of a cycle, as a function of (cycle, e) with values in (0, 1].
      decay: d if `scale` falls as exp(−d · e) within a cycle; 0 if it is constant within a cycle.
    """
    half = length / 2

    def value(epochs: float) -> float:
        cycle = math.floor(1 + epochs / length)
        x = abs(epochs / half - 2 * cycle + 1)
        return trough + (1 - trough) * max(0.0, 1 - x) * scale(cycle, epochs)

    def next_turn(epochs: float) -> float:
        begun = math.floor(epochs / half) * half
        # In the first half of a cycle, t epochs after its start, the curve is above the trough by a
        # height proportional to t · exp(−decay · t). This height is largest at t = 1 / decay.
        early = begun + 1 / decay if decay > 1 / half and math.floor(epochs / half) % 2 == 0 else 0
        return early if early > epochs else begun + half

    return Curve(value, next_turn, lambda _: False, rises=True)


def points(texts: Sequence[str], total: float) -> list[float]:
    """Returns annealing points in epochs, from texts such as "60" (epochs) or "30%" (of `total`).

    >>> points(["30%", "60"], total=90)
    [27.0, 60.0]

    Raises:
      UserError: if a text is not a number or a percentage, or a point is out of order or outside
        the run.
    """
    parsed: list[float] = []
    for text in texts:
        value = _epochs(text, total)
        if not 0 < value < total:
            raise UserError(
                f"--anneal_epochs has {text}, which is not inside the run of {total:g} epochs: "
                f"give points between 0 and {total:g}, or raise --epochs."
            )
        if parsed and value <= parsed[-1]:
            raise UserError(
                f"--anneal_epochs={','.join(texts)} is out of order at {text}: "
                "sort the points from early to late."
            )
        parsed.append(value)
    return parsed


def _epochs(text: str, total: float) -> float:
    """Returns the epochs that `text` names; raises UserError if it is not a number or a percent."""
    try:
        return total * float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError as error:
        raise UserError(
            f"--anneal_epochs has {text!r}: write epochs or percents, for example 30%,60%,80%."
        ) from error


def _lengths(texts: Sequence[str], total: float) -> list[float]:
    """Returns the lengths of --anneal=exponential, in epochs; they may be longer than the run."""
    found = [_epochs(text, total) for text in texts]
    for text, length in zip(texts, found, strict=True):
        if not 0 < length < math.inf:
            raise UserError(
                f"--anneal_epochs has {text}, which is not a length: give epochs above 0, in which "
                "the noise scale falls by --anneal_factor."
            )
    return found


def from_config(config: Config, start: Setting, examples: int) -> Curve:
    """Returns the curve of --anneal for initial Setting `start` and `examples` training examples.

    >>> anneal = from_config(Config(anneal="cosine", epochs=90), Setting(128, 0.1, 0.9), 50_000)
    >>> round(anneal(45), 4)
    0.5

    Raises:
      UserError: if --anneal_epochs is invalid or does not fit --anneal, or if --min_learning_rate
        is not below the initial learning rate.
    """
    read = _lengths if config.anneal == "exponential" else points
    at = read(config.anneal_epochs, config.epochs)
    if config.anneal == "step":
        remedy = "" if at else "give one point or more, for example 30%,60%,80%"
    elif config.anneal == "exponential":
        remedy = "" if len(at) == 1 else "give one length in epochs"
    else:
        remedy = "leave --anneal_epochs out" if at else ""
    if remedy:
        given = ",".join(config.anneal_epochs) or "(nothing)"
        raise UserError(f"--anneal_epochs={given} does not fit --anneal={config.anneal}: {remedy}.")
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
    given = config.min_learning_rate
    lowest = start.learning_rate / 4 if given is None else given
    if lowest >= start.learning_rate:
        raise UserError(
            f"--min_learning_rate={lowest:g} is not below the initial learning rate "
            f"{start.learning_rate:g}, the peak of the cycles: lower it, or raise the initial rate."
        )

    length, trough = config.cycle_epochs, lowest / start.learning_rate
    factor = config.cycle_factor
    if config.cycle_factor_per == "cycle":
        return cyclical(length, trough, lambda cycle, _: factor ** (cycle - 1))
    # The exponent counts updates as if each had the initial batch size. So the curve depends on the
    # epochs alone, and not on the batch sizes.
    return cyclical(
        length,
        trough,
        lambda _, epochs: factor ** (epochs * examples / start.batch_size),
        decay=-math.log(factor) * examples / start.batch_size,
    )
