"""State of a run: all that a checkpoint holds as JSON, in addition to TensorFlow's variables."""

import dataclasses
import itertools
import json
from typing import Any

import numpy as np

from trainer.distributed.process_group import ProcessGroup
from trainer.errors import UserError
from trainer.run_dir.checkpoint_progress import PROGRESS, checked
from trainer.run_dir.checkpoints import Checkpoints
from trainer.schedule.stretch import Stretch
from trainer.system import typed_json
from trainer.training.evaluation import Evaluations
from trainer.training.phases import Phases
from trainer.training.update_metrics import UpdateMetrics


@dataclasses.dataclass
class State:
    """Progress of a run; the names of the fields are those in a checkpoint.

    Attributes:
      position: number of examples consumed.
      update: number of updates.
      seconds: duration of all stretches (series of updates), including those before a resume and,
        in a fork that goes on at its parent's position, the parent's.
      input_wait: seconds that the device waited for examples, over all stretches.
      resumes: number of times that the run was resumed from a checkpoint.
      window: totals since the last logged training point, by name. `loss` and `top1` are summed
        over the examples, and `examples` is their number. `seconds` and `input_wait` are summed
        over the stretches. With --clip_norm, `updates` and `clipped` are the numbers of all updates
        and of clipped updates.
      setting: batch size, learning rate and momentum of the last update.
      evaluation: values of the last evaluation, and its position. If the run averages the model,
        the entries `plain` and `ema` have the values for the parameters and for their average. The
        entries loss, top1 and top5 repeat the values of the entry that --evaluate_with selects.
      best: top1 and update of the evaluation with the highest top1. If the run averages the model,
        also the value of --evaluate_with.
      control: state of the controller, which may change the schedule during the run.
      noise: averages of the measured gradient noise.
      metric_noise: averages of the gradient noise in the optimizer's metric; {} without a metric.
      statistics_starts: maps the index of each batch norm in the model to the position at which it
        first trained, or to None if the norm's statistics were loaded.
      training_data: properties of the training data, as in training_data.json.
      model_configuration: fingerprint of the user's own model at the start of the run.
      normalization_refreshed: whether Keras' Normalization layers compute with their weights. False
        in runs that an old version began, whose parameters fit the statistics that the layers had
        when the model was built.
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
    metric_noise: dict[str, Any] = dataclasses.field(default_factory=dict)
    statistics_starts: dict[str, int | None] | None = None
    training_data: dict[str, Any] = dataclasses.field(default_factory=dict)
    model_configuration: str | None = None
    normalization_refreshed: bool = False

    @property
    def evaluated_at(self) -> int:
        """Position of the last evaluation; 0 before the first evaluation."""
        return self.evaluation.get("position", 0)

    @property
    def last_start(self) -> int:
        """Position at which the last update started; must not be used before the first update."""
        return self.position - int(self.setting["batch_size"])

    def trained(self, stretch: Stretch, metrics: UpdateMetrics) -> None:
        """Records a stretch after it is trained."""
        updates, size = len(stretch.settings), stretch.batch_size
        self.position = stretch.end
        self.update += updates
        self.setting = dataclasses.asdict(stretch.settings[-1])
        self.seconds += metrics.seconds
        wait = metrics.input_wait or 0.0
        self.input_wait += wait
        sums = {
            "loss": float(np.sum(metrics.loss, dtype=np.float64)) * size,
            "top1": float(np.sum(metrics.top1, dtype=np.float64)) * size,
            "examples": updates * size,
            "seconds": metrics.seconds,
            "input_wait": wait,
        }
        if metrics.clipped is not None:
            sums |= {"updates": updates, "clipped": int(np.sum(metrics.clipped))}
        self.window = {name: self.window.get(name, 0.0) + value for name, value in sums.items()}

    def evaluated(self, evaluations: Evaluations) -> None:
        """Records the evaluations at the current position.

        If --evaluate_with has changed, the new evaluation becomes the best one.
        """
        counted, mark = evaluations.counted, evaluations.mark
        self.evaluation = {"position": self.position, **dataclasses.asdict(counted)}
        if evaluations.ema:
            self.evaluation["plain"] = dataclasses.asdict(evaluations.plain)
            self.evaluation["ema"] = dataclasses.asdict(evaluations.ema)
        same = self.best and self.best.get("evaluated_with") == mark.get("evaluated_with")
        if not self.best or not same or counted.top1 > self.best["top1"]:
            self.best = {"top1": counted.top1, "update": self.update, **mark}


def restore(checkpoints: Checkpoints, phases: Phases) -> State:
    """Reads the newest intact checkpoint into the variables, and returns the saved state.

    The set of variables depends on whether frozen layers had begun to train at the checkpoint.
    If no checkpoint exists, the result is a new state.

    Raises:
      UserError: if another version of the program wrote the checkpoint.
    """
    saved = checkpoints.restore(phases.variables_at)
    if saved is None:
        return State(statistics_starts=phases.step.starts, normalization_refreshed=True)
    try:
        state = State(**checked(saved, "the newest checkpoint"))
    except TypeError as error:
        raise UserError(
            f"the newest checkpoint was written by another version: {error}.\n"
            "Resume with the version that wrote it, or name a new --model_dir."
        ) from error
    state.resumes += 1
    if state.statistics_starts is None:  # An old version wrote the checkpoint.
        state.statistics_starts = phases.step.starts
    return state


def share(state: State, phases: Phases, group: ProcessGroup) -> State:
    """Returns the chief's state, and assigns the chief's values to the variables of all processes.

    Only the chief, which is the first process, has read the checkpoint.
    """
    if group.count == 1:
        return state
    text = group.broadcast_text(json.dumps(dataclasses.asdict(state)))
    state = State(**typed_json.parsed(text, PROGRESS))
    phases.move_to(state.position)
    for variable in itertools.chain(*phases.variables().values()):
        value = variable.numpy()
        variable.assign(group.broadcast(value).astype(value.dtype))
    return state
