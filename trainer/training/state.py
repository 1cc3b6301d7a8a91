"""Where a run is: all that a checkpoint keeps besides variables, as JSON can hold it."""

import dataclasses
import json
from collections.abc import Iterable
from typing import Any

import numpy as np

from trainer.distributed.process_group import ProcessGroup
from trainer.errors import UserError
from trainer.run_dir.checkpoint_progress import PROGRESS, checked
from trainer.run_dir.checkpoints import Checkpoints
from trainer.schedule.stretch import Stretch
from trainer.system import typed_json
from trainer.training.evaluation import Evaluation
from trainer.training.step import TrainingStep, UpdateMetrics


@dataclasses.dataclass
class State:
    """What a run has done so far.

    Attributes:
      position: examples consumed.
      update: updates done.
      seconds: of stretches, over all starts of the run.
      input_wait: seconds of them in which the device waited for examples.
      resumes: how often the run went on from a checkpoint.
      window: losses and hits since the last logged point, weighted by examples, and its examples,
        seconds and input wait.
      setting: what the last update used.
      evaluation: the last one's values, and the position that it is of.
      best: top1 and update of the best evaluation.
      control: what the controller remembers.
      noise: the gradient noise measured so far.
      statistics_starts: the position at which each batch norm first trained, by its number among
        the model's; None: its statistics were loaded. None for all in a checkpoint from before
        they were kept.
      training_data: what the run learns with, as training_data.json has it.
      model_configuration: fingerprint of a model of the user's own, as the run began with it.
    """

    position: int = 0
    update: int = 0
    seconds: float = 0.0
    input_wait: float = 0.0
    resumes: int = 0
    window: dict[str, float] = dataclasses.field(default_factory=dict)
    setting: dict[str, Any] = dataclasses.field(default_factory=dict)
    evaluation: dict[str, Any] = dataclasses.field(default_factory=dict)
    best: dict[str, Any] | None = None
    control: dict[str, Any] = dataclasses.field(default_factory=dict)
    noise: dict[str, Any] = dataclasses.field(default_factory=dict)
    statistics_starts: dict[str, int | None] | None = None
    training_data: dict[str, Any] = dataclasses.field(default_factory=dict)
    model_configuration: str | None = None

    @property
    def evaluated_at(self) -> int:
        """The position of the last evaluation."""
        return self.evaluation.get("position", 0)

    def trained(self, stretch: Stretch, records: UpdateMetrics) -> None:
        """Goes on by a stretch."""
        updates, size = len(stretch.settings), stretch.batch_size
        self.position = stretch.end
        self.update += updates
        self.setting = dataclasses.asdict(stretch.settings[-1])
        self.seconds += records.seconds
        wait = records.input_wait or 0.0
        self.input_wait += wait
        sums = {
            "loss": float(np.sum(records.loss, dtype=np.float64)) * size,
            "top1": float(np.sum(records.top1, dtype=np.float64)) * size,
            "examples": updates * size,
            "seconds": records.seconds,
            "input_wait": wait,
        }
        self.window = {name: self.window.get(name, 0.0) + value for name, value in sums.items()}

    def evaluated(self, evaluation: Evaluation) -> None:
        """Keeps an evaluation at this position."""
        self.evaluation = {"position": self.position, **dataclasses.asdict(evaluation)}
        if self.best is None or evaluation.top1 > self.best["top1"]:
            self.best = {"top1": evaluation.top1, "update": self.update}


def restore(checkpoints: Checkpoints, step: TrainingStep) -> State:
    """Returns the state of the newest checkpoint that is whole, its variables read; or a new one.

    Raises:
      UserError: the checkpoint is of another program.
    """
    saved = checkpoints.restore()
    if saved is None:
        return State(statistics_starts=step.starts)
    try:
        state = State(**checked(saved, "the newest checkpoint"))
    except TypeError as error:
        raise UserError(
            f"the newest checkpoint was written by another version: {error}.\n"
            "Go on with the version that wrote it, or name a new --model_dir."
        ) from error
    state.resumes += 1
    if state.statistics_starts is None:  # From before they were kept: all trained from the start.
        state.statistics_starts = step.starts
    return state


def share(state: State, variables: Iterable[Any], group: ProcessGroup) -> State:
    """Returns the chief's state, and assigns its values to `variables`, in all processes.

    The chief alone reads the checkpoint.
    """
    if group.count == 1:
        return state
    text = group.broadcast_text(json.dumps(dataclasses.asdict(state)))
    for variable in variables:
        value = variable.numpy()
        variable.assign(group.broadcast(value).astype(value.dtype))
    return State(**typed_json.parsed(text, PROGRESS))
