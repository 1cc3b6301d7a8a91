"""Phases of a run with --freeze: some layers are frozen up to a position, then all layers train.

Each phase has its own training step, because frozen parameters have no optimizer slots and no sums
of gradients. (In the output of `plan`, a phase is something else: consecutive updates with one
batch size, learning rate, momentum and image size.)
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from trainer.run_dir.checkpoints import Variables
from trainer.training import setup
from trainer.training.step import TrainingStep


@dataclasses.dataclass
class Phases:
    """Training step for each position, the number of examples that the run has consumed.

    Attributes:
      new_step: function that creates a training step for the layers that are trainable now.
      frozen: layers that --freeze names; none if they train from the first update on.
      until: position from which the `frozen` layers train; None if they never train.
      step: training step of the current phase.
    """

    new_step: Callable[[], TrainingStep]
    frozen: Sequence[keras.layers.Layer]
    until: int | None
    step: TrainingStep

    def next_change(self, position: int) -> int | None:
        """Returns the next position after `position` at which the phase changes, or None."""
        return self.until if self.until is not None and position < self.until else None

    def move_to(self, position: int) -> bool:
        """Sets `step` for the updates from `position` on; returns whether `step` has changed.

        Parameters that trained before keep their slots. The slots of other parameters are zero.
        """
        frozen = self.until is None or position < self.until
        if not self.frozen or frozen != self.frozen[0].trainable:
            return False
        for layer in self.frozen:
            layer.trainable = not frozen
        before, self.step = self.step, self.new_step()
        slots = {id(p): own for p, own in zip(before.parameters, before.slots, strict=True)}
        for parameter, own in zip(self.step.parameters, self.step.slots, strict=True):
            for new, old in zip(own, slots.get(id(parameter), ()), strict=False):
                new.assign(old.numpy())
        self.step.traces = before.traces
        # A batch norm that trains from now on starts at `position`. If its moving statistics were
        # loaded, its start stays None.
        self.step.starts = {
            name: before.starts.get(name, None if start is None else position)
            for name, start in self.step.starts.items()
        }
        return True

    def step_of_all(self) -> TrainingStep:
        """Returns a step that trains all layers that ever train; it needs the most memory."""
        if self.until is None or all(layer.trainable for layer in self.frozen):
            return self.step
        was = [layer.trainable for layer in self.frozen]
        for layer in self.frozen:
            layer.trainable = True
        step = self.new_step()
        for layer, trainable in zip(self.frozen, was, strict=True):
            layer.trainable = trainable
        return step

    def variables(self) -> Variables:
        """Returns the variables of a checkpoint in the current phase, by group."""
        slots = list(itertools.chain(*self.step.slots))
        found = {"weights": setup.values(self.step.model), "slots": slots}
        average = self.step.average
        return found | {"averages": average.variables} if average else found

    def variables_at(self, progress: Mapping[str, Any]) -> Variables:
        """Moves to the phase of a checkpoint; returns the variables that the checkpoint holds."""
        position = progress.get("position")
        self.move_to(position if isinstance(position, int) else 0)
        return self.variables()
