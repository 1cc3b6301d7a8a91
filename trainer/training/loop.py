"""The training loop: evaluate, save, stop, run a stretch, observe.

Position is the only clock of what is learned. Time decides when a checkpoint is written and how
long a stretch is, and neither changes a number.
"""

import dataclasses
import enum
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from trainer.distributed.process_group import ProcessGroup
from trainer.errors import NonFiniteLossError, NotSavedError
from trainer.run_dir.checkpoints import Checkpoints
from trainer.run_dir.metrics_writer import MetricsWriter
from trainer.schedule.controller import Controller
from trainer.schedule.gradient_noise import GradientNoise
from trainer.schedule.noise_scale import Setting
from trainer.schedule.stretch import Stretch, next_stretch
from trainer.schedule.trajectory import Trajectory, position_of
from trainer.system import memory
from trainer.training import log_points
from trainer.training.evaluation import Evaluation, gap_warning
from trainer.training.progress import Progress
from trainer.training.state import State
from trainer.training.step import TrainingStep, UpdateMetrics

# Signals wait for the end of a stretch, and Python is idle while it lasts.
_STRETCH_SECONDS = 2.0


class StopReason(enum.Enum):
    """Why a run ended before its end, with a checkpoint."""

    SIGNAL = "a wish to stop, of any host"
    EPOCH = "--stop_at_epoch"


@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """What the loop follows: the trajectory, how it lies on the devices, and when to look up."""

    trajectory: Trajectory
    replicas: int
    ghost_batch_size: int
    micro_batch_size: int
    log_every_updates: int
    eval_every_epochs: float
    checkpoint_seconds: float
    noise_horizon: int
    stop_at: int | None


def train(
    course: LoopConfig,
    state: State,
    step: TrainingStep,
    batches: Callable[[int, int], Iterator[Any]],
    evaluate: Callable[[Callable[[], bool]], Evaluation | None],
    checkpoints: Checkpoints,
    summaries: MetricsWriter,
    progress: Progress,
    stopped: Callable[[], bool],
    hosts: ProcessGroup,
) -> Evaluation | StopReason:
    """Trains from `state`, which it moves, to the end of the trajectory.

    Args:
      batches: (position, micro-batch size) → iterator over micro-batches from there.
      evaluate: evaluates the model, or returns None once its argument, `stopped`, says so.
      stopped: whether the run shall stop at the end of the stretch.
      hosts: the processes that train together; all stop with one of them.

    Returns:
      The evaluation at the end; or why the run was stopped before it.

    Raises:
      NonFiniteLossError: with update, position, learning rate and batch size.
      NotSavedError: where the run ends or stops and its last checkpoint cannot be written.
      UserError: where memory runs out.
    """
    trajectory = course.trajectory
    control, end = trajectory.control, trajectory.end
    noise = GradientNoise(course.noise_horizon)
    if state.update:
        control.load_state_dict(state.control)
        noise.load_state_dict(state.noise)
    iterator: Iterator[Any] | None = None
    micro_batch_size, rate, saved_at = 0, 0.0, time.monotonic()
    training_loss = math.inf  # After a resume it is not known until the next stretch.
    early = StopReason.EPOCH
    while True:
        evaluated = _evaluation_due(course, state)
        if evaluated:
            evaluation = evaluate(stopped)
            if evaluation is None:  # It is made when the run goes on.
                early = StopReason.SIGNAL
                break
            state.evaluated(_finite(evaluation, state))
            decision = control.evaluated(evaluation.top1)
            state.control = control.state_dict()
            log_points.evaluated(evaluation, decision, trajectory, state, summaries, progress)
            classes, norms = step.model.output_shape[-1], bool(step.starts)
            if warning := gap_warning(evaluation, training_loss, classes, batch_norm=norms):
                progress.line(warning)
        if control.ended or state.position >= end:
            break
        due = evaluated or time.monotonic() - saved_at >= course.checkpoint_seconds
        stopping, (save, most_updates) = hosts.agree(
            stopped(), due, _most_updates(course, state, rate)
        )
        if save:
            _save(checkpoints, summaries, step, state, hosts)
            saved_at = time.monotonic()
        if stopping:
            early = StopReason.SIGNAL
            break
        if course.stop_at is not None and state.position >= course.stop_at:
            break
        stretch = next_stretch(
            trajectory,
            state.position,
            until=min(
                end,
                course.stop_at or end,
                _next_evaluation(course, state),
                _next_look(control, state.position) or end,
            ),
            most_updates=most_updates,
            replicas=course.replicas,
            ghost_batch_size=course.ghost_batch_size,
            micro_batch_size=course.micro_batch_size,
        )
        if iterator is None or stretch.layout.micro_batch_size != micro_batch_size:
            micro_batch_size = stretch.layout.micro_batch_size
            iterator = batches(state.position, micro_batch_size)
        with memory.oom_as_user_error(*_out_of_memory_texts(stretch, course)):
            records = _broadcast_metrics(step.run(iterator, stretch), hosts)
        _check_finite(stretch, records, state)
        state.trained(stretch, records)
        squares = records.micro_batch_sq_norm.tolist(), records.batch_sq_norm.tolist()
        measured = noise.add(micro_batch_size, stretch.batch_size, *squares)
        looked = (_next_look(control, stretch.position) or math.inf) <= state.position
        decision = control.measured(noise) if looked else None
        state.control, state.noise = control.state_dict(), noise.state_dict()
        rate = len(stretch.settings) * stretch.batch_size / records.seconds
        training_loss = float(np.mean(records.loss))
        growing = trajectory.at(state.position).batch_size != stretch.batch_size
        if (
            growing
            or state.update % course.log_every_updates == 0
            or _evaluation_due(course, state)
        ):
            now = noise if measured else None
            log_points.trained(records, now, decision, trajectory, state, summaries, progress)
        progress.update(
            state.position,
            loss=float(records.loss[-1]),
            batch=stretch.batch_size,
            epoch=state.position / trajectory.examples,
        )
    _save(checkpoints, summaries, step, state, hosts)
    _check_saved(checkpoints, state)
    if (state.position < end and not control.ended) or _evaluation_due(course, state):
        return early
    return Evaluation(**{name: state.evaluation[name] for name in ("loss", "top1", "top5")})


def _broadcast_metrics(records: UpdateMetrics, hosts: ProcessGroup) -> UpdateMetrics:
    """Those of the chief: a norm's last bits may differ from one host to another, and all have to
    decide the same by it."""
    if hosts.count == 1:
        return records
    names = ("loss", "top1", "gradient_norm", "part_square", "whole_square")
    values = hosts.broadcast(np.stack([getattr(records, name) for name in names]))  # [5, n]
    return dataclasses.replace(records, **dict(zip(names, values.astype(np.float32), strict=True)))


def _next_evaluation(course: LoopConfig, state: State) -> int:
    """The position at which the next evaluation is due, but for the one at the end."""
    every, examples = course.eval_every_epochs, course.trajectory.examples
    last = state.evaluated_at
    count = int(last / examples / every)
    while position_of(count * every, examples) <= last:
        count += 1
    return position_of(count * every, examples)


def _evaluation_due(course: LoopConfig, state: State) -> bool:
    due = min(_next_evaluation(course, state), course.trajectory.end)
    return state.position >= due and state.position > state.evaluated_at


def _next_look(control: Controller, position: int) -> int | None:
    """The first position above `position` at which the controller looks at the gradient noise."""
    return control.every and (position // control.every + 1) * control.every


def _most_updates(course: LoopConfig, state: State, rate: float) -> int:
    """Updates to the next logged point, or that fit in a stretch; one to measure the rate."""
    to_log = course.log_every_updates - state.update % course.log_every_updates
    batch_size = course.trajectory.at(state.position).batch_size
    return max(1, min(to_log, int(rate * _STRETCH_SECONDS / batch_size)))


def _out_of_memory_texts(stretch: Stretch, course: LoopConfig) -> tuple[str, str]:
    """What is said, and to be done, where a micro-batch does not fit in memory."""
    size, ghost = stretch.layout.micro_batch_size, course.ghost_batch_size
    half = max(1, size // ghost // 2) * ghost
    remedy = (
        f"Use --micro_batch_size={half} or less, or 0 for the fastest that fits."
        if half < size
        else memory.LESS
    )
    return f"a micro-batch of {size} examples", remedy


def _check_finite(stretch: Stretch, records: UpdateMetrics, state: State) -> None:
    finite = np.isfinite(records.loss) & np.isfinite(records.gradient_norm)
    if finite.all():
        return
    bad = int(np.argmin(finite))
    what = (
        f"the loss is {records.loss[bad]:g} and the gradient's norm {records.gradient_norm[bad]:g}"
    )
    position = stretch.position + bad * stretch.batch_size
    raise _not_finite(f"{what} at", state.update + bad, position, stretch.settings[bad])


def _finite(evaluation: Evaluation, state: State) -> Evaluation:
    """The evaluation, if its loss is a number."""
    if math.isfinite(evaluation.loss):
        return evaluation
    raise _lost(f"the evaluation's loss is {evaluation.loss:g}", state)


def _lost(what: str, state: State) -> NonFiniteLossError:
    setting = Setting(**state.setting)
    return _not_finite(f"{what} after", state.update, state.position, setting)


def _not_finite(what: str, update: int, position: int, setting: Setting) -> NonFiniteLossError:
    """The error of an update; `what` is not finite, `at` or `after` it."""
    return NonFiniteLossError(
        f"{what} update {update}, position {position}, with learning rate "
        f"{setting.learning_rate:g} and batch size {setting.batch_size}.\n"
        "Checkpoints are from before. In a new --model_dir, lower the learning rate or "
        "lengthen --warmup_epochs."
    )


def _save(
    checkpoints: Checkpoints,
    summaries: MetricsWriter,
    step: TrainingStep,
    state: State,
    hosts: ProcessGroup,
) -> None:
    infinite, _ = hosts.agree(not step.finite())
    if infinite:
        raise _lost("parameters or moving statistics are not finite", state)
    if summaries.flush():
        best = state.best["update"] if state.best else None
        checkpoints.save(state.update, dataclasses.asdict(state), best)


def _check_saved(checkpoints: Checkpoints, state: State) -> None:
    newest = checkpoints.wait()
    if newest != state.update:
        there_is = "there is no checkpoint" if newest is None else f"the newest is of {newest}"
        raise NotSavedError(
            f"update {state.update} is not saved; {there_is}.\n"
            "Make room, and give the same command again: it goes on from "
            f"{'the start' if newest is None else 'there'}."
        )
