"""Controllers, which change a run's schedule after an evaluation or a noise measurement.

For each update, the schedule requests a Target: a noise scale, a momentum and a smallest batch
size. The controller may change the Target. Then `realize` turns the Target into a Setting: a batch
size, a learning rate and a momentum. A checkpoint keeps the state of the controller.
"""

from collections.abc import Mapping
from typing import Any

from trainer.errors import UserError
from trainer.schedule.gradient_noise import GradientNoise
from trainer.schedule.realize import Target


class Controller:
    """Base class of controllers. It changes nothing, and is itself used for a fixed schedule."""

    ended = False  # True once the run should stop, even before its last epoch.
    every: int | None = None  # Examples between calls of `measured`; None if it is not called.

    def changed(self, target: Target) -> Target:
        """Returns the schedule's `target` with the changes of the controller."""
        return target

    def evaluated(self, top1: float) -> str | None:
        """Receives an evaluation's top-1 accuracy; returns the reason for a change, or None."""

    def measured(self, noise: GradientNoise) -> str | None:
        """Receives the measured gradient noise; returns the reason for a change, or None."""

    def state_dict(self) -> dict[str, Any]:
        """Returns the state to keep in a checkpoint, as values that JSON can hold."""
        return {}

    def load_state_dict(self, memory: dict[str, Any]) -> None:
        """Restores the state that `state_dict` returned."""

    def take_over(self, memory: dict[str, Any]) -> None:
        """Begins a fork with `memory`, the state of the same controller in the other run."""
        self.load_state_dict(memory)


def remembered(memory: Mapping[str, Any], name: str, anneal: str) -> Any:
    """Returns `memory[name]`; `memory` is the saved state of the controller of --anneal=`anneal`.

    Raises:
      UserError: if `memory` lacks `name`, because a run with another --anneal saved the state.
    """
    if name not in memory:
        raise UserError(
            f"the checkpoint lacks the state of --anneal={anneal}: {name} is missing.\n"
            "Give the --anneal that the run began with, or name a new --model_dir."
        )
    return memory[name]
