"""The noise scale of SGD, and the start of a run solved from it.

    g = ε (N/B − 1) / (1 − m) ≈ ε N / (B (1 − m))         Smith et al. 2018 (1711.00489), eq. 5

Runs with the same g over the same examples follow the same learning curve, so a tuned reference
(ε₀, B₀, m₀) fixes g, and a user who changes some of ε, B and m gets the rest from it.
"""

import dataclasses

from trainer.config import UserError


@dataclasses.dataclass(frozen=True)
class Setting:
    """What one update uses: B in examples, ε, and m."""

    batch_size: int
    learning_rate: float
    momentum: float


def noise_scale(setting: Setting, examples: int) -> float:
    """g ≈ ε N / (B (1 − m)) for N = `examples`."""
    return examples * _per_example(setting)


def _per_example(setting: Setting) -> float:
    return setting.learning_rate / (setting.batch_size * (1 - setting.momentum))


def solve(
    reference: Setting,
    *,
    learning_rate: float | None,
    batch_size: int | None,
    momentum: float | None,
    ghost_batch_size: int,
) -> Setting:
    """The start with the reference's noise scale in which what is not None is kept.

    m not given is m₀. B given solves ε (for m = m₀: Goyal et al. 2017's linear scaling rule). ε
    given solves B; only m given keeps ε₀ and solves B. A solved B is rounded to a multiple of
    `ghost_batch_size`, and ε takes the residual.

    Raises:
      UserError: when both ε and B are given and disagree with g by more than 1e-6.
    """
    if learning_rate is None and batch_size is None and momentum is None:
        return reference
    m = reference.momentum if momentum is None else momentum
    g = _per_example(reference)  # of one example: N cancels
    if batch_size is not None:
        solved = g * batch_size * (1 - m)
        if learning_rate is None:
            return Setting(batch_size, solved, m)
        if abs(learning_rate / solved - 1) > 1e-6:
            raise UserError(
                f"learning rate {learning_rate:g}, batch size {batch_size} and momentum {m:g} have "
                f"{learning_rate / solved:.3g} times the reference's noise scale.\n"
                f"Leave one out, or use --initial_learning_rate={solved:g}, or "
                f"--initial_batch_size={learning_rate / (g * (1 - m)):.0f}."
            )
        return Setting(batch_size, learning_rate, m)
    kept = reference.learning_rate if learning_rate is None else learning_rate
    ideal = kept / (g * (1 - m))
    solved_size = max(1, round(ideal / ghost_batch_size)) * ghost_batch_size
    if abs(solved_size / ideal - 1) < 1e-9:
        return Setting(solved_size, kept, m)
    return Setting(solved_size, g * solved_size * (1 - m), m)
