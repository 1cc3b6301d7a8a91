"""The training loop: evaluate, log, save or stop if due, then train a stretch.

Position is the only clock of what is learned. Time decides when a checkpoint is written and how
long a stretch is; neither changes what is learned.
"""

import dataclasses
import enum
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from trainer.distributed.process_group import ProcessGroup
from trainer.schedule.gradient_noise import GradientNoise
from trainer.schedule.stretch import Stretch, next_stretch
from trainer.schedule.trajectory import Trajectory, position_of
from trainer.system import memory
from trainer.system.output import log
from trainer.system.tensorflow_errors import translate
from trainer.training import divergence
from trainer.training.evaluation import Evaluation, Evaluator, gap_warning
from trainer.training.log_points import log_evaluation, log_training
from trainer.training.outputs import Outputs
from trainer.training.state import State
from trainer.training.step import TrainingStep
from trainer.training.update_metrics import UpdateMetrics

# Python waits while a stretch runs, so a signal takes effect at the end of the stretch.
_STRETCH_SECONDS = 2.0


class StopReason(enum.Enum):
    """Why a run stopped before its end, with a checkpoint."""

    SIGNAL = "a signal to any of the processes"
    EPOCH = "--stop_at_epoch"


@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """Settings of the loop.

    Attributes:
      trajectory: position → setting, and the controller that may change it.
      replicas: number of replicas of all processes.
      ghost_batch_size: number of examples that share batch-norm statistics.
      micro_batch_size: the largest micro-batch of a replica, in examples.
      log_every_updates: interval of logged points, in updates.
      eval_every_epochs: interval of evaluations, in epochs.
      checkpoint_seconds: time between checkpoints.
      noise_horizon: averaging horizon of the gradient noise, in examples.
      stop_at: position at which the run stops before its end, if any.
    """

    trajectory: Trajectory
    replicas: int
    ghost_batch_size: int
    micro_batch_size: int
    log_every_updates: int
    eval_every_epochs: float
    checkpoint_seconds: float
    noise_horizon: int
    stop_at: int | None


class TrainingLoop:
    """Trains from a state to the end of a trajectory; call `run` once."""

    def __init__(
        self,
        config: LoopConfig,
        state: State,
        step: TrainingStep,
        batches: Callable[[int, int], Iterator[Any]],
        evaluator: Evaluator,
        outputs: Outputs,
        group: ProcessGroup,
    ) -> None:
        """Continues from `state`, which the loop updates.

        Args:
          config: settings of the loop.
          state: state of the run.
          step: the device code; its model has the parameters that belong to `state`.
          batches: returns an iterator over the micro-batches from (position, micro-batch size) on.
          evaluator: evaluates the model.
          outputs: what the run writes.
          group: the processes that train together.
        """
        self._config, self._state, self._step = config, state, step
        self._batches, self._evaluator = batches, evaluator
        self._outputs, self._group = outputs, group
        self._trajectory, self._controller = config.trajectory, config.trajectory.control
        self._noise = GradientNoise(config.noise_horizon)
        if state.update:
            self._controller.load_state_dict(state.control)
            self._noise.load_state_dict(state.noise)
        self._iterator: Iterator[Any] | None = None
        self._micro_batch_size = 0  # The micro-batch size of `_iterator`.
        self._examples_per_second = 0.0  # Throughput in the last stretch.
        self._training_loss = math.inf  # Unknown before the first stretch.
        self._saved_at = time.monotonic()

    def run(self, should_stop: Callable[[], bool]) -> Evaluation | StopReason:
        """Trains to the end of the trajectory, or until the run has to stop.

        Args:
          should_stop: returns whether this process was asked to stop; if one was, all stop.

        Returns:
          The evaluation at the end, or why the run stopped before it.

        Raises:
          NonFiniteLossError: if training diverges.
          NotSavedError: if the last checkpoint cannot be written.
          UserError: if memory runs out.
        """
        while True:
            due = self._evaluation_due()
            if due and not self._evaluate(should_stop):
                return self._stop(StopReason.SIGNAL)  # The run evaluates when it resumes.
            if self._controller.ended or self._state.position >= self._trajectory.end:
                return self._finish()
            due = due or time.monotonic() - self._saved_at >= self._config.checkpoint_seconds
            stopping, (saving, most_updates) = self._group.agree(
                should_stop(), due, self._most_updates()
            )
            if stopping:
                return self._stop(StopReason.SIGNAL)
            if saving:
                self._save()
            if self._config.stop_at is not None and self._state.position >= self._config.stop_at:
                return self._stop(StopReason.EPOCH)
            self._train(self._next_stretch(most_updates))

    def _evaluate(self, should_stop: Callable[[], bool]) -> bool:
        """Evaluates, tells the controller, and logs; returns whether the evaluation finished."""
        evaluation = self._evaluator.evaluate(should_stop)
        if evaluation is None:
            return False
        divergence.check_evaluation(evaluation, self._state)
        self._state.evaluated(evaluation)
        decision = self._controller.evaluated(evaluation.top1)
        self._state.control = self._controller.state_dict()
        log_evaluation(evaluation, decision, self._trajectory, self._state, self._outputs.metrics)
        classes, norms = self._step.model.output_shape[-1], bool(self._step.starts)
        if warning := gap_warning(evaluation, self._training_loss, classes, batch_norm=norms):
            log(warning)
        return True

    def _train(self, stretch: Stretch) -> None:
        """Trains a stretch, tells the controller what was measured, and logs if due."""
        state = self._state
        if self._iterator is None or stretch.layout.micro_batch_size != self._micro_batch_size:
            self._micro_batch_size = stretch.layout.micro_batch_size
            self._iterator = self._batches(state.position, self._micro_batch_size)
        with translate(memory.out_of_memory(*self._out_of_memory_texts(stretch))):
            metrics = self._broadcast(self._step.run(self._iterator, stretch))
        divergence.check_updates(stretch, metrics, state)
        state.trained(stretch, metrics)
        squares = metrics.micro_batch_sq_norm.tolist(), metrics.batch_sq_norm.tolist()
        measured = self._noise.add(self._micro_batch_size, stretch.batch_size, *squares)
        decision = None
        if (self._next_decision(stretch.position) or math.inf) <= state.position:
            decision = self._controller.measured(self._noise)
        state.control, state.noise = self._controller.state_dict(), self._noise.state_dict()
        self._examples_per_second = len(stretch.settings) * stretch.batch_size / metrics.seconds
        self._training_loss = float(np.mean(metrics.loss))
        if self._log_due(stretch):
            noise, writer = self._noise if measured else None, self._outputs.metrics
            log_training(metrics, noise, decision, self._trajectory, state, writer)
        self._outputs.progress.update(
            state.position,
            loss=float(metrics.loss[-1]),
            batch=stretch.batch_size,
            epoch=state.position / self._trajectory.examples,
        )

    def _broadcast(self, metrics: UpdateMetrics) -> UpdateMetrics:
        """Returns the chief's metrics, so that all processes make the same decisions: the last bits
        of a norm may differ between machines."""
        if self._group.count == 1:
            return metrics
        names = ("loss", "top1", "gradient_norm", "micro_batch_sq_norm", "batch_sq_norm")
        own = np.stack([getattr(metrics, name) for name in names])  # [5, n]
        chiefs = self._group.broadcast(own).astype(np.float32)
        return dataclasses.replace(metrics, **dict(zip(names, chiefs, strict=True)))

    def _next_stretch(self, most_updates: int) -> Stretch:
        """Returns the next stretch, which ends before the loop has something else to do."""
        config, position = self._config, self._state.position
        return next_stretch(
            self._trajectory,
            position,
            until=min(
                self._trajectory.end,
                config.stop_at or self._trajectory.end,
                self._next_evaluation(),
                self._next_decision(position) or self._trajectory.end,
            ),
            most_updates=most_updates,
            replicas=config.replicas,
            ghost_batch_size=config.ghost_batch_size,
            micro_batch_size=config.micro_batch_size,
        )

    def _next_evaluation(self) -> int:
        """Returns the position of the next evaluation, apart from the one at the end."""
        every, examples = self._config.eval_every_epochs, self._trajectory.examples
        last = self._state.evaluated_at
        count = int(last / examples / every)
        while position_of(count * every, examples) <= last:
            count += 1
        return position_of(count * every, examples)

    def _evaluation_due(self) -> bool:
        due = min(self._next_evaluation(), self._trajectory.end)
        return self._state.position >= due and self._state.position > self._state.evaluated_at

    def _next_decision(self, position: int) -> int | None:
        """Returns the first position above `position` at which the controller decides by the
        gradient noise, or None if the controller does not use the noise."""
        every = self._controller.every
        return every and (position // every + 1) * every

    def _log_due(self, stretch: Stretch) -> bool:
        """Returns whether to log a point: at intervals, before growth, or before an evaluation."""
        grows = self._trajectory.at(self._state.position).batch_size != stretch.batch_size
        at_interval = self._state.update % self._config.log_every_updates == 0
        return grows or at_interval or self._evaluation_due()

    def _most_updates(self) -> int:
        """Returns the most updates of the next stretch: up to the next logged point, and at most
        what fits in _STRETCH_SECONDS; 1 while the throughput is unknown."""
        every = self._config.log_every_updates
        batch_size = self._trajectory.at(self._state.position).batch_size
        fit = int(self._examples_per_second * _STRETCH_SECONDS / batch_size)
        return max(1, min(every - self._state.update % every, fit))

    def _out_of_memory_texts(self, stretch: Stretch) -> tuple[str, str]:
        """Returns what does not fit if memory runs out, and the remedy."""
        size, ghost = stretch.layout.micro_batch_size, self._config.ghost_batch_size
        half = max(1, size // ghost // 2) * ghost
        remedy = (
            f"Use --micro_batch_size={half} or less, or 0 for the fastest that fits."
            if half < size
            else memory.LESS
        )
        return f"a micro-batch of {size} examples", remedy

    def _save(self) -> None:
        """Starts to write a checkpoint, if all parameters are finite in all processes."""
        infinite, _ = self._group.agree(not self._step.finite())
        if infinite:
            raise divergence.error_after(
                "parameters or moving statistics are not finite", self._state
            )
        self._outputs.save(self._state)
        self._saved_at = time.monotonic()

    def _stop(self, reason: StopReason) -> StopReason:
        self._save()
        self._outputs.check_saved(self._state)
        return reason

    def _finish(self) -> Evaluation:
        self._save()
        self._outputs.check_saved(self._state)
        last = self._state.evaluation
        return Evaluation(**{name: last[name] for name in ("loss", "top1", "top5")})
