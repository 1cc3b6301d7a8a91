"""Controllers: objects that change the schedule during a run, from what they observe.

A controller has state, which the checkpoint keeps. Like a fixed schedule, it determines a Target,
which `realize` turns into a batch size and a learning rate.
"""

from collections.abc import Mapping
from typing import Any

from trainer.errors import UserError
from trainer.schedule.gradient_noise import GradientNoise


class Controller:
    """Controller of a run with a fixed schedule: it decides nothing."""

    ended = False  # True if the run should stop before its last epoch.
    every: int | None = None  # Examples between two measurements of the gradient noise.

    def evaluated(self, top1: float) -> str | None:
        """Observes an evaluation; returns a message with the decision and its numbers, or None."""
        del top1
        return None

    def measured(self, noise: GradientNoise) -> str | None:
        """Observes the gradient noise; returns a message with the decision and its numbers."""
        del noise
        return None

    def state_dict(self) -> dict[str, Any]:
        """Returns the state to keep in a checkpoint, as values that JSON can hold."""
        return {}

    def load_state_dict(self, memory: dict[str, Any]) -> None:
        """Restores the state that `state_dict` returned."""
        del memory


def remembered(memory: Mapping[str, Any], name: str, anneal: str) -> Any:
    """Returns the value `name` of the state that a run with --anneal=`anneal` saved.

    Raises:
      UserError: if the state lacks it, because a run with another --anneal saved it.
    """
    if name not in memory:
        raise UserError(
            f"the checkpoint lacks the state of --anneal={anneal}: {name} is missing.\n"
            "Give the --anneal that the run began with, or name a new --model_dir."
        )
    return memory[name]
