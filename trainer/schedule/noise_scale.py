"""Noise scale g of SGD, and the initial Setting of a run, which is computed from g.

    g = ε (N/B − 1) / (1 − m) ≈ ε N / (B (1 − m))         Smith et al. 2018 (1711.00489), eq. 5

ε is the learning rate, B the batch size, m the momentum and N the number of training examples.
g measures the random fluctuations of SGD. Runs with the same g over the same examples follow the
same learning curve. The user gives the values ε₀, B₀ and m₀ of a tuned run, called the reference.
They determine g. If the user also sets some of ε, B and m, `solve` computes the others from g.
"""

import dataclasses

from trainer.errors import UserError


@dataclasses.dataclass(frozen=True)
class Setting:
    """Batch size B in examples, learning rate ε and momentum m of one update."""

    batch_size: int
    learning_rate: float
    momentum: float


@dataclasses.dataclass(frozen=True)
class Scaling:
    """Scaling rule: Settings of equal noise scale have the same ε / (B^exponent (1 − m)).

    Attributes:
      exponent: 1 for SGD (Goyal et al. 2017). 1/2 is an option for adaptive optimizers (Krizhevsky
        2014, 1404.5997, section 5). At 0, ε does not depend on B.
      momentum_counts: True if momentum makes the steps 1 / (1 − m) times as long. This holds for
        the velocity u ← m u + gradient. Adam, AdamW and LAMB average gradients instead, so their
        rule lacks the factor 1 − m.
    """

    exponent: float = 1.0
    momentum_counts: bool = True

    def one_minus_momentum(self, momentum: float) -> float:
        """Returns 1 − m, or 1 if `momentum_counts` is False."""
        return 1 - momentum if self.momentum_counts else 1.0

    def kept(self, setting: Setting) -> float:
        """Returns ε / (B^exponent (1 − m)), which is constant at equal noise scale."""
        size = setting.batch_size**self.exponent
        return setting.learning_rate / (size * self.one_minus_momentum(setting.momentum))

    def growth(self, ratio: float) -> float:
        """Returns the factor on B that keeps g if ε is scaled by `ratio`; 1 if exponent is 0."""
        return ratio ** (1 / self.exponent) if self.exponent else 1.0


LINEAR = Scaling()


def noise_scale(setting: Setting, examples: int, scaling: Scaling = LINEAR) -> float:
    """Returns g ≈ ε N / (B (1 − m)), or ε N / B if not `momentum_counts`; N is `examples`."""
    room = scaling.one_minus_momentum(setting.momentum)
    return examples * (setting.learning_rate / (setting.batch_size * room))


def solve(
    reference: Setting,
    *,
    learning_rate: float | None,
    batch_size: int | None,
    momentum: float | None,
    ghost_batch_size: int,
    scaling: Scaling = LINEAR,
) -> Setting:
    """Returns the Setting with the noise scale of `reference` and the values that are not None.

    - If `momentum` is None, m is m₀.
    - A given B determines ε. For m = m₀ and `LINEAR`, this is the rule of Goyal et al. 2017.
    - A given ε determines B. If only m is given, ε is ε₀ and determines B.
    - If no value is given, the result is `reference`.

    A computed B is rounded to a multiple of `ghost_batch_size`; then ε is adjusted to keep g. If
    the exponent of `scaling` is 0, each value that is None is taken from the reference.

    Raises:
      UserError: if ε and B are given, and their g differs from the reference's by more than one
        part in a million.
    """
    if learning_rate is None and batch_size is None and momentum is None:
        return reference
    m = reference.momentum if momentum is None else momentum
    wanted = reference.learning_rate if learning_rate is None else learning_rate
    if scaling.exponent == 0:
        return Setting(batch_size or reference.batch_size, wanted, m)
    room, kept = scaling.one_minus_momentum(m), scaling.kept(reference)

    def rate_at(size: int) -> float:
        return kept * size**scaling.exponent * room

    ideal = scaling.growth(wanted / (kept * room))
    solved_size = max(1, round(ideal / ghost_batch_size)) * ghost_batch_size
    if batch_size is None:
        exact = abs(solved_size / ideal - 1) < 1e-9
        return Setting(solved_size, wanted if exact else rate_at(solved_size), m)
    solved_rate = rate_at(batch_size)
    if learning_rate is None:
        return Setting(batch_size, solved_rate, m)
    if _disagree(learning_rate, solved_rate):
        fits = not _disagree(learning_rate, rate_at(solved_size))
        raise UserError(
            f"learning rate {learning_rate:g}, batch size {batch_size} and momentum {m:g} have "
            f"{learning_rate / solved_rate:.3g} times the reference's noise scale.\n"
            f"Use --initial_learning_rate={solved_rate:.9g}, or "
            + (f"--initial_batch_size={solved_size}, or " if fits else "")
            + "leave one of the three out."
        )
    return Setting(batch_size, learning_rate, m)


def _disagree(a: float, b: float) -> bool:
    return abs(a / b - 1) > 1e-6
