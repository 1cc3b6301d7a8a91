"""Controller of --anneal=plateau: divides the noise scale when validation accuracy stops improving.

noise_scale.py defines the noise scale. A plateau is a series of evaluations without improvement.
Each plateau causes an annealing step, as in Keras' ReduceLROnPlateau. After --max_anneals steps,
the next plateau ends the run. With the same `cooldown`, Keras ignores one evaluation fewer than
this controller.
"""

import dataclasses
from typing import Any

from trainer.schedule.anneal import LOWEST
from trainer.schedule.controller import Controller, remembered
from trainer.schedule.realize import Target

_STATE = ("best", "waited", "cooling", "anneals", "ended")


@dataclasses.dataclass
class PlateauController(Controller):
    """Takes an annealing step after `patience` evaluations without improvement.

    >>> controller = PlateauController(5, 0.0, patience=2, cooldown=0, max_anneals=3)
    >>> messages = [controller.evaluated(top1) for top1 in (0.9, 0.9, 0.9)]
    >>> controller.noise_scale_factor()
    0.2

    Attributes:
      factor: divisor of the noise scale at each step.
      min_improvement: top1, from 0 to 1, improves only if it exceeds `best` by more than this.
      patience: number of consecutive evaluations without improvement that make a plateau.
      cooldown: number of evaluations after a step that do not count towards a plateau.
      max_anneals: largest number of steps.
      best: top1 of the last improvement. The controller's state is this field and all below.
      waited: number of evaluations so far that count towards the next plateau.
      cooling: number of evaluations until the cooldown ends.
      anneals: number of steps taken.
      ended: True if a plateau has ended the run.
    """

    factor: float
    min_improvement: float
    patience: int
    cooldown: int
    max_anneals: int
    best: float | None = None
    waited: int = 0
    cooling: int = 0
    anneals: int = 0
    ended: bool = False

    def noise_scale_factor(self) -> float:
        """Returns the noise scale divided by its initial value."""
        return max(self.factor**-self.anneals, LOWEST)

    def changed(self, target: Target) -> Target:
        return dataclasses.replace(target, noise_scale_factor=self.noise_scale_factor())

    def evaluated(self, top1: float) -> str | None:
        """Takes a step or ends the run if there is a plateau; returns the reason, or None."""
        if self.best is None or top1 > self.best + self.min_improvement:
            self.best, self.waited = top1, 0
            self.cooling = max(0, self.cooling - 1)
            return None
        if self.cooling:
            self.cooling -= 1
            return None
        self.waited += 1
        if self.waited < self.patience:
            return None
        numbers = (
            f"top1 {top1:.4f} is not above {self.best:.4f} + {self.min_improvement:g} "
            f"(evaluations without improvement: {self.waited})"
        )
        self.waited = 0
        if self.anneals >= self.max_anneals:  # A fork may lower --max_anneals below its steps.
            self.ended = True
            return f"{numbers}: after {self.anneals} annealing steps, the run ends"
        self.anneals, self.cooling = self.anneals + 1, self.cooldown
        return (
            f"{numbers}: annealing step {self.anneals} of {self.max_anneals}, "
            f"the noise scale is divided by {self.factor:g}"
        )

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _STATE}

    def load_state_dict(self, memory: dict[str, Any]) -> None:
        for name in _STATE:
            setattr(self, name, remembered(memory, name, "plateau"))

    def take_over(self, memory: dict[str, Any]) -> None:
        # The plateau that ended the other run does not end the fork.
        self.load_state_dict({**memory, "ended": False})
