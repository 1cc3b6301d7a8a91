"""Controllers, which change the schedule of a run in response to evaluations or measured noise.

A controller has state, which the checkpoint keeps. A controller determines a Target, as a fixed
schedule does, and `realize` turns the Target into a Setting.
"""

from collections.abc import Mapping
from typing import Any

from trainer.errors import UserError
from trainer.schedule.gradient_noise import GradientNoise


class Controller:
    """Base class of controllers; also the controller of a fixed schedule, which never acts."""

    ended = False  # True once the run should stop, even before its last epoch.
    every: int | None = None  # Examples between two calls of `measured`; None: never.

    def evaluated(self, top1: float) -> str | None:
        """Observes an evaluation; returns a message that explains a decision, or None."""
        del top1
        return None

    def measured(self, noise: GradientNoise) -> str | None:
        """Observes the gradient noise; returns a message that explains a decision, or None."""
        del noise
        return None

    def state_dict(self) -> dict[str, Any]:
        """Returns the state to keep in a checkpoint, as values that JSON can hold."""
        return {}

    def load_state_dict(self, memory: dict[str, Any]) -> None:
        """Restores the state that `state_dict` returned."""
        del memory


def remembered(memory: Mapping[str, Any], name: str, anneal: str) -> Any:
    """Returns `memory[name]`, where `memory` is the state of a controller of --anneal=`anneal`.

    Raises:
      UserError: if `memory` lacks `name`, because a run with another --anneal saved the state.
    """
    if name not in memory:
        raise UserError(
            f"the checkpoint lacks the state of --anneal={anneal}: {name} is missing.\n"
            "Give the --anneal that the run began with, or name a new --model_dir."
        )
    return memory[name]
