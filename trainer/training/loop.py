"""Training loop: evaluates, saves or stops if due, then trains a stretch and logs it if due.

A stretch is a series of updates that one call of the device computes. The position is the number of
examples that the run has consumed. Only the position decides what is learned. Time may decide when
a checkpoint is written and how long a stretch is, but neither changes what is learned. A controller
may change the schedule after an evaluation or a measurement of the gradient noise.
"""

import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from trainer.config import number_range
from trainer.config.flags import Config
from trainer.data import png
from trainer.data.host_batches import begin
from trainer.schedule.averaging import evaluated_with
from trainer.schedule.gradient_noise import GradientNoise
from trainer.schedule.stretch import Stretch, next_stretch
from trainer.schedule.trajectory import noise_horizon, position_of
from trainer.system import memory
from trainer.system.output import log
from trainer.system.tensorflow_errors import translate
from trainer.training import averaging, divergence, driving, evaluation_gap
from trainer.training.evaluation import Evaluation
from trainer.training.log_points import log_evaluations, log_training
from trainer.training.profiling import UpdateProfiler
from trainer.training.run_setup import Run
from trainer.training.step import TrainingStep
from trainer.training.stop_reason import StopReason
from trainer.training.update_metrics import UpdateMetrics
from trainer.training.worker_changes import WorkerChanges

# Longest intended duration of a stretch, in seconds. Signals take effect after a stretch.
_STRETCH_SECONDS = 2.0

# Rows and columns of the picture of augmented examples.
_SHOWN = 6


class TrainingLoop:
    """Trains a run from its state to the end of its trajectory; call `run` once."""

    def __init__(self, config: Config, run: Run) -> None:
        """Prepares to continue from `run.state`, which the loop then updates."""
        self._config, self._run = config, run
        self._state, self._phases = run.state, run.phases
        self._outputs, self._group = run.outputs, run.group
        self._trajectory, self._controller = run.trajectory, run.trajectory.control
        examples = run.trajectory.examples
        self._counts = evaluated_with(config)
        stop = config.stop_at_epoch
        self._stop_at = run.trajectory.end if stop is None else position_of(stop, examples)
        self._noise = GradientNoise(noise_horizon(config, examples))
        self._metric_noise = GradientNoise(noise_horizon(config, examples))
        if self._state.update:
            self._controller.load_state_dict(self._state.control)
            self._noise.load_state_dict(self._state.noise)
            self._metric_noise.load_state_dict(self._state.metric_noise)
        self._iterator: Iterator[Any] | None = None
        self._micro_batch_size = 0  # The micro-batch size of `_iterator`.
        self._image_size: int | None = None  # The image size of `_iterator`.
        self._examples_per_second = 0.0  # Throughput in the last stretch.
        self._training_loss = math.inf  # Mean loss in the last stretch.
        self._saved_at = time.monotonic()
        self._workers = WorkerChanges(config, run)
        asked = config.profile_updates if run.group.chief else None  # Only the chief profiles.
        updates = number_range.parse(asked) if asked else None
        self._profiler = UpdateProfiler(updates, run.path / "tensorboard" / "profile")

    def run(self, should_stop: Callable[[], bool]) -> Evaluation | StopReason:
        """Trains to the end; returns the last evaluation, or the reason why the run stopped early.

        If `should_stop` returns True in one process, all processes stop.

        Raises:
          NonFiniteLossError: if training diverges.
          NotSavedError: if the last checkpoint cannot be written.
          UserError: if memory runs out.
        """
        with self._profiler:
            return self._run_to_end(should_stop)

    def _run_to_end(self, should_stop: Callable[[], bool]) -> Evaluation | StopReason:
        while True:
            due = self._evaluation_due()
            if due and not self._evaluate(should_stop):
                return self._stop(StopReason.SIGNAL)  # A resumed run repeats the evaluation.
            if self._controller.ended or self._state.position >= self._trajectory.end:
                return self._stop()
            due = due or time.monotonic() - self._saved_at >= 60 * self._config.checkpoint_minutes
            stopping, (saving, most_updates, workers) = self._group.agree(
                should_stop(), due, self._most_updates(), self._workers.wanted()
            )
            if stopping:
                return self._stop(StopReason.SIGNAL)
            if saving:
                self._save()
            if self._state.position >= self._stop_at:
                return self._stop(StopReason.EPOCH)
            if workers:
                last = self._stop(StopReason.WORKERS)
                self._workers.ask(workers)
                return last
            self._train(self._next_stretch(most_updates))

    @property
    def _step(self) -> TrainingStep:
        return self._phases.step

    def _evaluate(self, should_stop: Callable[[], bool]) -> bool:
        """Evaluates, logs, and passes the accuracy to the controller; returns False if stopped."""
        evaluations = averaging.evaluate(
            self._run.evaluator, self._step.average, self._counts, should_stop
        )
        if evaluations is None:
            return False
        divergence.check_evaluations(evaluations, self._state)
        self._state.evaluated(evaluations)
        decision = self._controller.evaluated(evaluations.counted.top1)
        self._state.control = self._controller.state_dict()
        log_evaluations(evaluations, decision, self._trajectory, self._state, self._outputs.metrics)
        if warning := evaluation_gap.warning(
            *(self._config, evaluations.plain, self._training_loss),
            classes=self._step.model.output_shape[-1],
            batch_norm=bool(self._step.starts),
        ):
            log(warning)
        return True

    def _train(self, stretch: Stretch) -> None:
        """Trains a stretch; if due, logs it, and passes the gradient noise to the controller."""
        state = self._state
        kind = stretch.layout.micro_batch_size, stretch.image_size
        if self._iterator is None or kind != (self._micro_batch_size, self._image_size):
            self._micro_batch_size, self._image_size = kind
            examples = self._run.batches(state.position, *kind)
            if not state.update and self._group.chief:
                self._show_pictures(examples)
            self._iterator = begin(examples)
        self._profiler.before(state.update)
        with translate(memory.out_of_memory(*_out_of_memory_texts(self._config, stretch))):
            metrics = self._broadcast(self._step.run(self._iterator, stretch))
        self._profiler.after(state.update + len(stretch.settings))
        divergence.check_updates(stretch, metrics, state)
        state.trained(stretch, metrics)
        self._move_phase()
        measured = self._measure(metrics, stretch.batch_size)
        decision = None
        if (self._next_decision(stretch.position) or math.inf) <= state.position:
            decision = self._controller.measured(self._noise)
        state.control, state.noise = self._controller.state_dict(), self._noise.state_dict()
        self._examples_per_second = len(stretch.settings) * stretch.batch_size / metrics.seconds
        self._training_loss = float(np.mean(metrics.loss))
        self._workers.trained(stretch, metrics.seconds)
        if self._log_due(stretch):
            writer = self._outputs.metrics
            log_training(metrics, measured, decision, self._trajectory, state, writer)
        self._outputs.progress.update(
            state.position,
            loss=float(metrics.loss[-1]),
            batch=stretch.batch_size,
            epoch=state.position / self._trajectory.examples,
        )

    def _measure(self, metrics: UpdateMetrics, batch_size: int) -> dict[str, GradientNoise]:
        """Adds a stretch to averages of the gradient noise; returns changed averages by name."""
        squares = metrics.micro_batch_sq_norm.tolist(), metrics.batch_sq_norm.tolist()
        if not self._noise.add(self._micro_batch_size, batch_size, *squares):
            return {}
        found = {"gradient_noise_scale": self._noise}
        if metrics.metric_sq_norms is not None:
            parts, wholes = metrics.metric_sq_norms
            known = wholes > 0  # In the optimizer's first update, the metric is 0.
            squares = parts[known].tolist(), wholes[known].tolist()
            self._metric_noise.add(self._micro_batch_size, batch_size, *squares)
            self._state.metric_noise = self._metric_noise.state_dict()
            found["gradient_noise_scale_adam"] = self._metric_noise
        return found

    def _show_pictures(self, examples: tf.data.Dataset) -> None:
        """Writes a picture of the first training examples, as they are augmented."""
        images = itertools.chain.from_iterable(batch for batch, *_ in examples.as_numpy_iterator())
        shown = np.stack([*itertools.islice(images, _SHOWN**2)])
        self._outputs.metrics.keep_pictures(png.grid(shown, _SHOWN))

    def _move_phase(self) -> None:
        """Unfreezes layers at the position of --unfreeze_epochs; must run before a save."""
        if self._phases.move_to(self._state.position):
            self._outputs.checkpoints.variables = self._phases.variables()
            self._state.statistics_starts = self._step.starts
            log(f"all layers train from update {self._state.update + 1} on")

    def _broadcast(self, metrics: UpdateMetrics) -> UpdateMetrics:
        """Returns the chief's metrics; those of other processes may differ by rounding."""
        if self._group.count == 1:
            return metrics
        names = ("loss", "top1", "gradient_norm", "micro_batch_sq_norm", "batch_sq_norm")
        in_metric = metrics.metric_sq_norms or ()
        own = np.stack([*(getattr(metrics, name) for name in names), *in_metric])  # [5 or 7, n]
        chiefs = [*self._group.broadcast(own).astype(np.float32)]
        values = dict(zip(names, chiefs, strict=False))
        if in_metric:
            values["metric_sq_norms"] = (chiefs[-2], chiefs[-1])
        return dataclasses.replace(metrics, **values)

    def _next_stretch(self, most_updates: int) -> Stretch:
        """Returns the next stretch, up to the next evaluation, decision, phase change or stop."""
        position, end = self._state.position, self._trajectory.end
        changes = self._next_decision(position), self._phases.next_change(position)
        until = min(end, self._stop_at, self._next_evaluation(), *filter(None, changes))
        return next_stretch(
            self._trajectory,
            position,
            until=until,
            most_updates=most_updates,
            replicas=self._step.strategy.num_replicas_in_sync,
            ghost_batch_size=self._config.ghost_batch_size,
            micro_batch_size=self._run.micro_batch_sizes[self._trajectory.image_size(position)],
        )

    def _next_evaluation(self) -> int:
        """Returns the position of the next periodic evaluation; the run may end before it."""
        every, examples = self._config.eval_every_epochs, self._trajectory.examples
        last = self._state.evaluated_at
        count = int(last / examples / every)
        while position_of(count * every, examples) <= last:
            count += 1
        return position_of(count * every, examples)

    def _evaluation_due(self) -> bool:
        due = min(self._next_evaluation(), self._trajectory.end)
        return self._state.position >= due and self._state.position > self._state.evaluated_at

    def _next_decision(self, after: int) -> int | None:
        """Returns the next position at which the controller uses the gradient noise, or None."""
        every = self._controller.every
        return every and (after // every + 1) * every

    def _log_due(self, stretch: Stretch) -> bool:
        """Returns whether to log a training point after `stretch`.

        Points are logged at intervals, before an evaluation, and before a new batch or image size.
        """
        position, current = self._state.position, (stretch.batch_size, stretch.image_size)
        after = self._trajectory.at(position).batch_size, self._trajectory.image_size(position)
        at_interval = self._state.update % self._config.log_every_updates == 0
        return after != current or at_interval or self._evaluation_due()

    def _most_updates(self) -> int:
        """Returns the largest number of updates in the next stretch.

        The stretch should take at most _STRETCH_SECONDS. It ends at the latest at the next logged
        point, or when a profile starts or ends. The result is at least 1.
        """
        every = self._config.log_every_updates
        batch_size = self._trajectory.at(self._state.position).batch_size
        fit = int(self._examples_per_second * _STRETCH_SECONDS / batch_size)
        ends = every - self._state.update % every, self._profiler.most_updates(self._state.update)
        return max(1, min(fit, *filter(None, ends)))

    def _save(self) -> None:
        """Starts to write a checkpoint; raises NonFiniteLossError if its values are not finite."""
        infinite, _ = self._group.agree(not self._step.finite())
        if infinite:
            averages = ", or their averages," if self._step.average else ""
            what = f"parameters, optimizer slots or moving statistics{averages} are not finite"
            raise divergence.error_after(what, self._state)
        driving.add_bad_examples(self._step.strategy, self._run.bad)
        self._outputs.save(self._state)
        self._saved_at = time.monotonic()

    def _stop(self, reason: StopReason | None = None) -> Evaluation | StopReason:
        """Saves a last time; returns `reason`, or the last evaluation if `reason` is None."""
        self._save()
        self._outputs.check_saved(self._state)
        last = self._state.evaluation
        last = last.get(self._counts, last)  # --evaluate_with may differ after a resume.
        return reason or Evaluation(**{name: last[name] for name in ("loss", "top1", "top5")})


def _out_of_memory_texts(config: Config, stretch: Stretch) -> tuple[str, str]:
    """Returns the subject and the remedy of the error message if memory runs out."""
    size, ghost = stretch.layout.micro_batch_size, config.ghost_batch_size
    half = max(1, size // ghost // 2) * ghost
    chosen = config.micro_batch_size and not config.deterministic
    other = ", or 0 for the fastest that fits" if chosen else ""
    remedy = f"Use --micro_batch_size={half} or less{other}." if half < size else memory.LESS
    return f"a micro-batch of {size} examples", remedy
