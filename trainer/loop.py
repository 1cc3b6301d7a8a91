"""The training loop: restore, run a stretch, observe, save, stop.

Position is the only clock of what is learned. Time decides when a checkpoint is written and how
long a stretch is, and neither changes a number.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from trainer.evaluation import Evaluation
from trainer.run_dir.checkpoints import Checkpoints, NotSavedError
from trainer.run_dir.progress import Progress
from trainer.run_dir.summaries import Summaries
from trainer.schedule.noise_scale import noise_scale
from trainer.schedule.stretch import Stretch, next_stretch
from trainer.schedule.trajectory import Trajectory, position_of
from trainer.step import Records, TrainingStep

# Signals wait for the end of a stretch, and Python is idle while it lasts.
STRETCH_SECONDS = 2.0


_CALMER = (
    "Checkpoints are from before. In a new --model_dir, lower the learning rate or lengthen "
    "--warmup_epochs."
)


class NonFiniteLossError(Exception):
    """The loss or the gradient is no number any more."""


@dataclasses.dataclass
class State:
    """Where a run is, all that a checkpoint keeps besides variables.

    Attributes:
      position: examples consumed.
      update: updates done.
      seconds: of stretches, over all starts of the run.
      input_wait: seconds of them in which the device waited for examples.
      resumes: how often the run went on from a checkpoint.
      window: losses and hits since the last logged point, weighted by examples, and its examples,
        seconds and input wait.
      best: top1 and update of the best evaluation.
    """

    position: int = 0
    update: int = 0
    seconds: float = 0.0
    input_wait: float = 0.0
    resumes: int = 0
    window: dict[str, float] = dataclasses.field(default_factory=dict)
    best: dict[str, Any] | None = None


@dataclasses.dataclass(frozen=True)
class Course:
    """What the loop follows: the trajectory, how it lies on the devices, and when to look up."""

    trajectory: Trajectory
    replicas: int
    ghost_batch_size: int
    micro_batch_size: int
    log_every_updates: int
    eval_every_epochs: float
    checkpoint_seconds: float
    stop_at: int | None


def restore(checkpoints: Checkpoints) -> State:
    """The state of the newest checkpoint that is whole, its variables read; or a new one."""
    saved = checkpoints.restore()
    if saved is None:
        return State()
    state = State(**saved)
    state.resumes += 1
    return state


def train(
    course: Course,
    state: State,
    step: TrainingStep,
    batches: Callable[[int, int], Iterator[Any]],
    evaluate: Callable[[], Evaluation],
    checkpoints: Checkpoints,
    summaries: Summaries,
    progress: Progress,
    stopped: Callable[[], bool],
) -> Evaluation | None:
    """Trains from `state`, which it moves, to the end of the trajectory.

    Args:
      batches: (position, micro-batch size) → distributed iterator over micro-batches from there.
      stopped: whether the run shall stop at the end of the stretch.

    Returns:
      The evaluation at the end; None where the run was stopped, with a checkpoint, before it.

    Raises:
      NonFiniteLossError: with update, position, learning rate and batch size.
      NotSavedError: where the run ends or stops and its last checkpoint cannot be written.
    """
    trajectory = course.trajectory
    end = trajectory.end
    iterator: Iterator[Any] | None = None
    micro_batch_size, rate, saved_at = 0, 0.0, time.monotonic()
    evaluation = None
    while state.position < end:
        if stopped() or (course.stop_at is not None and state.position >= course.stop_at):
            _save(checkpoints, summaries, step, state)
            _check_saved(checkpoints, state)
            return None
        due = _next_evaluation(course, state.position)
        stretch = next_stretch(
            trajectory,
            state.position,
            until=min(end, due, course.stop_at or end),
            most_updates=_most_updates(course, state, rate),
            replicas=course.replicas,
            ghost_batch_size=course.ghost_batch_size,
            micro_batch_size=course.micro_batch_size,
        )
        if iterator is None or stretch.layout.micro_batch_size != micro_batch_size:
            micro_batch_size = stretch.layout.micro_batch_size
            iterator = batches(state.position, micro_batch_size)
        records = step.run(iterator, stretch)
        _check_finite(stretch, records, state)
        _observe(stretch, records, state)
        rate = len(stretch.settings) * stretch.batch_size / records.seconds
        evaluating = state.position >= min(due, end)
        growing = trajectory.at(state.position).batch_size != stretch.batch_size
        if evaluating or growing or state.update % course.log_every_updates == 0:
            _log(stretch, records, state, trajectory.examples, summaries)
        progress.update(
            state.position,
            loss=float(records.loss[-1]),
            batch=stretch.batch_size,
            epoch=state.position / trajectory.examples,
        )
        better = False
        if evaluating:
            evaluation = _finite(step, evaluate(), state)
            _report(evaluation, stretch, state, trajectory.examples, summaries, progress)
            better = state.best is None or evaluation.top1 > state.best["top1"]
            if better:
                state.best = {"top1": evaluation.top1, "update": state.update}
        if better or time.monotonic() - saved_at >= course.checkpoint_seconds:
            _save(checkpoints, summaries, step, state)
            saved_at = time.monotonic()
    _save(checkpoints, summaries, step, state)
    _check_saved(checkpoints, state)
    return evaluation or _finite(step, evaluate(), state)


def _next_evaluation(course: Course, position: int) -> int:
    """The first position above `position` at which an evaluation is due."""
    every, examples = course.eval_every_epochs, course.trajectory.examples
    count = int(position / examples / every)
    while position_of(count * every, examples) <= position:
        count += 1
    return position_of(count * every, examples)


def _most_updates(course: Course, state: State, rate: float) -> int:
    """Updates to the next logged point, or that fit in STRETCH_SECONDS; one to measure the rate."""
    to_log = course.log_every_updates - state.update % course.log_every_updates
    batch_size = course.trajectory.at(state.position).batch_size
    return max(1, min(to_log, int(rate * STRETCH_SECONDS / batch_size)))


def _observe(stretch: Stretch, records: Records, state: State) -> None:
    updates, size = len(stretch.settings), stretch.batch_size
    state.position = stretch.end
    state.update += updates
    state.seconds += records.seconds
    wait = records.input_wait or 0.0
    state.input_wait += wait
    sums = {
        "loss": float(np.sum(records.loss, dtype=np.float64)) * size,
        "top1": float(np.sum(records.top1, dtype=np.float64)) * size,
        "examples": updates * size,
        "seconds": records.seconds,
        "input_wait": wait,
    }
    state.window = {name: state.window.get(name, 0.0) + value for name, value in sums.items()}


def _check_finite(stretch: Stretch, records: Records, state: State) -> None:
    finite = np.isfinite(records.loss) & np.isfinite(records.gradient_norm)
    if finite.all():
        return
    bad = int(np.argmin(finite))
    setting = stretch.settings[bad]
    raise NonFiniteLossError(
        f"the loss is {records.loss[bad]:g} and the gradient's norm "
        f"{records.gradient_norm[bad]:g} at update {state.update + bad}, position "
        f"{stretch.position + bad * stretch.batch_size}, with learning rate "
        f"{setting.learning_rate:g} and batch size {setting.batch_size}.\n{_CALMER}"
    )


def _log(
    stretch: Stretch, records: Records, state: State, examples: int, summaries: Summaries
) -> None:
    """A point with the means since the last one, and the values of the last update."""
    window, setting = state.window, stretch.settings[-1]
    timed = records.input_wait is not None
    summaries.write(
        "train",
        state.update,
        state.position,
        epoch=state.position / examples,
        loss=window["loss"] / window["examples"],
        top1=window["top1"] / window["examples"],
        **dataclasses.asdict(setting),
        noise_scale=noise_scale(setting, examples),
        gradient_norm=float(records.gradient_norm[-1]),
        examples_per_second=window["examples"] / window["seconds"],
        **({"input_wait": window["input_wait"] / window["seconds"]} if timed else {}),
    )
    state.window = {}


def _report(
    evaluation: Evaluation,
    stretch: Stretch,
    state: State,
    examples: int,
    summaries: Summaries,
    progress: Progress,
) -> None:
    epoch, setting = state.position / examples, stretch.settings[-1]
    summaries.write(
        "eval",
        state.update,
        state.position,
        epoch=epoch,
        **dataclasses.asdict(evaluation),
        **dataclasses.asdict(setting),
        noise_scale=noise_scale(setting, examples),
    )
    progress.line(
        f"epoch {epoch:6.2f}  update {state.update:6d}  batch {setting.batch_size:5d}  "
        f"learning rate {setting.learning_rate:.4g}  eval loss {evaluation.loss:.4f}  "
        f"top1 {evaluation.top1:.4f}"
    )


def _finite(step: TrainingStep, evaluation: Evaluation, state: State) -> Evaluation:
    """The evaluation, if it and the parameters are numbers: a loss is of before its update."""
    if math.isfinite(evaluation.loss) and step.finite():
        return evaluation
    raise NonFiniteLossError(
        f"the evaluation's loss is {evaluation.loss:g} after update {state.update}, position "
        f"{state.position}.\n{_CALMER}"
    )


def _save(checkpoints: Checkpoints, summaries: Summaries, step: TrainingStep, state: State) -> None:
    if not step.finite():
        raise NonFiniteLossError(
            f"parameters are no numbers after update {state.update}, position {state.position}.\n"
            f"{_CALMER}"
        )
    if summaries.flush():
        best = state.best["update"] if state.best else None
        checkpoints.save(state.update, dataclasses.asdict(state), best)


def _check_saved(checkpoints: Checkpoints, state: State) -> None:
    newest = checkpoints.wait()
    if newest != state.update:
        raise NotSavedError(
            f"update {state.update} is not saved; the newest checkpoint is of update {newest}.\n"
            "Make room, and give the same command again: it goes on from there."
        )
