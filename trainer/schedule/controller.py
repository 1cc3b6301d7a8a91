"""Control: what a run decides from what it observes, where a schedule is fixed in advance.

A controller remembers, and what it remembers is the checkpoint's to keep. It yields the same Target
as a schedule does, so that `realize` is all there is between a decision and the batch.
"""

from collections.abc import Mapping
from typing import Any

from trainer.errors import UserError
from trainer.schedule.gradient_noise import GradientNoise


class Controller:
    """Decides nothing: what a run has whose schedule is fixed."""

    ended = False  # whether the run shall end before its epochs are over
    every: int | None = None  # examples between two looks at the gradient noise

    def evaluated(self, top1: float) -> str | None:
        """Takes note of an evaluation; returns what it decided, and on which numbers."""
        del top1
        return None

    def measured(self, noise: GradientNoise) -> str | None:
        """Takes note of the gradient noise; returns what it decided, and on which numbers."""
        del noise
        return None

    def state_dict(self) -> dict[str, Any]:
        """All that it has to remember, as JSON can hold it."""
        return {}

    def load_state_dict(self, memory: dict[str, Any]) -> None:
        """Goes on from a memory."""
        del memory


def remembered(memory: Mapping[str, Any], name: str, anneal: str) -> Any:
    """Returns a value of a memory that a run with --anneal=`anneal` has made.

    Raises:
      UserError: the memory lacks it, because another kind of run has made it.
    """
    if name not in memory:
        raise UserError(
            f"the checkpoint does not hold what --anneal={anneal} remembers: {name} is missing.\n"
            "Give the --anneal that the run began with, or name a new --model_dir."
        )
    return memory[name]
