"""The points that a run logs, and the lines that it prints with them."""

import dataclasses
import math

from trainer.run_dir.metrics_writer import MetricsWriter
from trainer.schedule.gradient_noise import GradientNoise
from trainer.schedule.noise_scale import Setting
from trainer.schedule.trajectory import Trajectory
from trainer.training.evaluation import Evaluation
from trainer.training.progress import Progress
from trainer.training.state import State
from trainer.training.step import UpdateMetrics


def trained(
    records: UpdateMetrics,
    noise: GradientNoise | None,
    decision: str | None,
    trajectory: Trajectory,
    state: State,
    summaries: MetricsWriter,
    progress: Progress,
) -> None:
    """Logs the means since the last train point, which it empties, and the last update's values.

    `noise` is what that update's gradients have been measured into, or None where they were not.
    """
    window = state.window
    optional: dict[str, float | str] = {}
    scale = noise.scale if noise else None
    if scale is not None and math.isfinite(scale):
        optional["gradient_noise_scale"] = scale
    if records.input_wait is not None:
        optional["input_wait"] = window["input_wait"] / window["seconds"]
    if decision:
        optional["decision"] = decision
    summaries.write(
        "train",
        state.update,
        state.position,
        epoch=state.position / trajectory.examples,
        loss=window["loss"] / window["examples"],
        top1=window["top1"] / window["examples"],
        **_schedule(state, trajectory),
        gradient_norm=float(records.gradient_norm[-1]),
        examples_per_second=window["examples"] / window["seconds"],
        **optional,
    )
    state.window = {}
    _decided(decision, state, trajectory, progress)


def evaluated(
    evaluation: Evaluation,
    decision: str | None,
    trajectory: Trajectory,
    state: State,
    summaries: MetricsWriter,
    progress: Progress,
) -> None:
    """Logs an evaluation, and prints it."""
    epoch = state.position / trajectory.examples
    summaries.write(
        "eval",
        state.update,
        state.position,
        epoch=epoch,
        **dataclasses.asdict(evaluation),
        **_schedule(state, trajectory),
        **({"decision": decision} if decision else {}),
    )
    setting = Setting(**state.setting)
    progress.line(
        f"epoch {epoch:6.2f}  update {state.update:6d}  batch {setting.batch_size:5d}  "
        f"learning rate {setting.learning_rate:.4g}  eval loss {evaluation.loss:.4f}  "
        f"top1 {evaluation.top1:.4f}"
    )
    _decided(decision, state, trajectory, progress)


def _schedule(state: State, trajectory: Trajectory) -> dict[str, float]:
    """What the last update used."""
    return {**state.setting, "noise_scale": trajectory.noise_scale(Setting(**state.setting))}


def _decided(
    decision: str | None, state: State, trajectory: Trajectory, progress: Progress
) -> None:
    if decision is None:
        return
    before, then = Setting(**state.setting), trajectory.at(state.position)
    progress.line(
        f"{decision}; batch {before.batch_size} → {then.batch_size}, "
        f"learning rate {before.learning_rate:.4g} → {then.learning_rate:.4g}"
    )
