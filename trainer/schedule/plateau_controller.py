"""Plateau control: the noise scale comes down a step when the validation accuracy stands still.

The rule is that of Keras' ReduceLROnPlateau, whose cooldown is one longer for the same effect. The
step is realised by the batch or by the rate, and there is an end: after the last step, the next
plateau ends the run.
"""

import dataclasses
from typing import Any

from trainer.schedule.anneal import LOWEST
from trainer.schedule.controller import Controller, remembered

_REMEMBERED = ("best", "waited", "cooling", "anneals", "ended")


@dataclasses.dataclass
class PlateauController(Controller):
    """Its rules, and what it remembers.

    Attributes:
      factor: what a step divides the noise scale by.
      min_improvement: of top1 over the best so far, as a fraction, to count as one.
      patience: evaluations in a row without improvement that make a plateau.
      cooldown: evaluations after a step that do not count as waiting.
      max_anneals: steps.
      best: highest top1 that was an improvement.
      waited: evaluations without one.
      cooling: of the cooldown that are left.
      anneals: steps taken.
      ended: whether a plateau has ended the run.
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
        """How far the noise scale has come down."""
        return max(self.factor**-self.anneals, LOWEST)

    def evaluated(self, top1: float) -> str | None:
        """Waits, takes a step, or ends the run."""
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
            f"top1 {top1:.4f} is the last of {self.waited} that are not above "
            f"{self.best:.4f} + {self.min_improvement:g}"
        )
        self.waited = 0
        if self.anneals == self.max_anneals:
            self.ended = True
            return f"{numbers}: after {self.anneals} annealing steps, the run ends"
        self.anneals, self.cooling = self.anneals + 1, self.cooldown
        return (
            f"{numbers}: annealing step {self.anneals} of {self.max_anneals}, "
            f"the noise scale is divided by {self.factor:g}"
        )

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _REMEMBERED}

    def load_state_dict(self, memory: dict[str, Any]) -> None:
        for name in _REMEMBERED:
            setattr(self, name, remembered(memory, name, "plateau"))
