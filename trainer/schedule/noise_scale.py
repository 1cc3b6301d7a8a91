"""The noise scale of SGD, and the start of a run solved from it.

    g = ε (N/B − 1) / (1 − m) ≈ ε N / (B (1 − m))         Smith et al. 2018 (1711.00489), eq. 5

Runs with the same g over the same examples follow the same learning curve, so a tuned reference
(ε₀, B₀, m₀) fixes g, and a user who changes some of ε, B and m gets the rest from it.
"""

import dataclasses

from trainer.errors import UserError


@dataclasses.dataclass(frozen=True)
class Setting:
    """What one update uses: B in examples, ε, and m."""

    batch_size: int
    learning_rate: float
    momentum: float


@dataclasses.dataclass(frozen=True)
class Scaling:
    """How ε follows B and m at an equal noise scale: ε / (B^exponent (1 − m)) stays.

    Attributes:
      exponent: 1 for SGD (Goyal et al. 2017), 1/2 offered for adaptive optimizers (Krizhevsky
        2014, 1404.5997, section 5), 0 where ε does not follow.
      momentum_counts: whether momentum lengthens the steps by 1 / (1 − m), as it does in the
        paper's u ← m u + ∇; Adam's and LAMB's means of gradients do not.
    """

    exponent: float = 1.0
    momentum_counts: bool = True

    def one_minus_momentum(self, momentum: float) -> float:
        """1 − m, where m counts."""
        return 1 - momentum if self.momentum_counts else 1.0

    def kept(self, setting: Setting) -> float:
        """What stays equal with the noise scale."""
        size = setting.batch_size**self.exponent
        return setting.learning_rate / (size * self.one_minus_momentum(setting.momentum))

    def growth(self, ratio: float) -> float:
        """How many times B lets ε be `ratio` times as high."""
        return ratio ** (1 / self.exponent) if self.exponent else 1.0


LINEAR = Scaling()


def noise_scale(setting: Setting, examples: int, scaling: Scaling = LINEAR) -> float:
    """g ≈ ε N / (B (1 − m)) for N = `examples`; without the momentum where that does not count."""
    per_example = setting.learning_rate / (
        setting.batch_size * scaling.one_minus_momentum(setting.momentum)
    )
    return examples * per_example


def solve(
    reference: Setting,
    *,
    learning_rate: float | None,
    batch_size: int | None,
    momentum: float | None,
    ghost_batch_size: int,
    scaling: Scaling = LINEAR,
) -> Setting:
    """The start with the reference's noise scale in which what is not None is kept.

    m not given is m₀. B given solves ε (for m = m₀: Goyal et al. 2017's linear scaling rule). ε
    given solves B; only m given keeps ε₀ and solves B. A solved B is rounded to a multiple of
    `ghost_batch_size`, and ε takes the residual. Where ε does not follow B, what is not given is
    the reference's.

    Raises:
      UserError: when both ε and B are given and disagree with g by more than 1e-6.
    """
    if learning_rate is None and batch_size is None and momentum is None:
        return reference
    m = reference.momentum if momentum is None else momentum
    if scaling.exponent == 0:
        rate = learning_rate or reference.learning_rate
        return Setting(batch_size or reference.batch_size, rate, m)
    room, kept = scaling.one_minus_momentum(m), scaling.kept(reference)

    def rate_at(size: int) -> float:
        return kept * size**scaling.exponent * room

    wanted = reference.learning_rate if learning_rate is None else learning_rate
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
            + "leave one of them out."
        )
    return Setting(batch_size, learning_rate, m)


def _disagree(a: float, b: float) -> bool:
    return abs(a / b - 1) > 1e-6
