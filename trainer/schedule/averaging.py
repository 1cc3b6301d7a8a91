"""Weights of the exponential moving average (EMA) of the parameters, on the reference clock.

A position is the number of training examples that the run has consumed. The reference clock counts
n = position / B₀, with B₀ = --base_batch_size. At all batch sizes, the weight of past parameters
is multiplied by d = --ema_decay each time that n increases by 1. The average at position p is

    average(p) = Σ_x d^((p − x)/B₀) · θ(x) / Σ_x d^((p − x)/B₀)

Here, positions count from the start of the average, which is the start of the run, or of the fork
that adds an average. The sums are over the positions x of the p examples. θ(x) are the parameters
after the update that used the example at x. In a long run, the last B₀ / (1 − d) examples have
about 63% of the weight; this number of examples is the horizon. After each update of B examples,
the average changes by

    average += (1 − d^(B/B₀)) / (1 − d^n) · (θ − average)      n = position after the update / B₀

The denominator removes the bias towards the initial parameters (Kingma & Ba 2015, section 3). So
the first update has the weight 1, and the average never contains the initial parameters.
"""

import math
from collections.abc import Sequence

from trainer.config.flags import Config
from trainer.errors import UserError

# Values of --evaluate_with: the parameters as they are, or their average.
PLAIN, EMA = "plain", "ema"


def update_weights(
    decay: float, base_batch_size: int, batch_size: int, ends: Sequence[int]
) -> list[float]:
    """Returns the weight of each update: the factor on (θ − average) in the module's docstring.

    Args:
      decay: d, above 0 and below 1.
      base_batch_size: B₀, in examples.
      batch_size: B, in examples, which is the same in all updates.
      ends: position after each update, from the start of the average.
    """
    # For a decay near 1, 1 − d^n would have large rounding errors, which expm1 avoids.
    log_decay = math.log(decay) / base_batch_size
    moved = math.expm1(batch_size * log_decay)
    return [moved / math.expm1(end * log_decay) for end in ends]


def evaluated_with(config: Config) -> str:
    """Returns the parameters that the run's results describe: PLAIN, or EMA for their average.

    If --evaluate_with is not set, the result is EMA for a run with --ema_decay, otherwise PLAIN.

    Raises:
      UserError: if --evaluate_with=ema is given without --ema_decay.
    """
    if config.ema_decay is None and config.evaluate_with == EMA:
        raise UserError(
            "--evaluate_with=ema needs an average of the parameters, which the run does not have: "
            "train it with --ema_decay, or leave --evaluate_with out."
        )
    return config.evaluate_with or (PLAIN if config.ema_decay is None else EMA)


def described(config: Config, examples: int, largest: int) -> list[str]:
    """Returns a list with one line about the average, or [] if the run has no average.

    Args:
      config: flags of the run.
      examples: number of training examples.
      largest: largest batch of the run, in examples.

    Raises:
      UserError: if --evaluate_with=ema is given without --ema_decay.
    """
    counts = evaluated_with(config)
    if config.ema_decay is None:
        return []
    horizon = config.base_batch_size / (1 - config.ema_decay)
    line = (
        f"--ema_decay={config.ema_decay}: the average has a horizon of {horizon:,.0f} examples "
        f"({horizon / examples:.3g} epochs)"
    )
    # The last batch has the weight 1 − exp(−5), or the first has exp(−1/10) of the last one's.
    if horizon < largest / 5:
        line += f", far less than a batch of {largest:,}, so it almost equals the last parameters"
    elif horizon > 10 * config.epochs * examples:
        line += ", far more than the run has, so all examples have nearly equal weight"
    evaluated = "the average" if counts == EMA else "the plain parameters"
    return [f"{line}; results are those of {evaluated}"]
