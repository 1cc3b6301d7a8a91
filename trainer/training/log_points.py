"""Writes the logged points of a run, and prints evaluations and decisions of the controller.

A point is one line of metrics.jsonl. It has values after an update, such as the loss. The
controller may change the schedule (batch sizes and learning rates) during the run.
"""

import dataclasses
import math
from collections.abc import Mapping

from trainer.run_dir.metrics_writer import MetricsWriter
from trainer.schedule.gradient_noise import GradientNoise
from trainer.schedule.noise_scale import Setting
from trainer.schedule.trajectory import Trajectory
from trainer.system.output import log
from trainer.training.evaluation import Evaluations
from trainer.training.state import State
from trainer.training.update_metrics import UpdateMetrics


def log_training(
    metrics: UpdateMetrics,
    noise: Mapping[str, GradientNoise],
    decision: str | None,
    trajectory: Trajectory,
    state: State,
    writer: MetricsWriter,
) -> None:
    """Logs a training point: means since the last training point, and values of the last update.

    Args:
      metrics: metrics of the last stretch, which is a series of updates.
      noise: averages of the measured gradient noise, by name; {} if the last stretch did not
        measure it.
      decision: message about the controller's decision after the stretch; None without a decision.
      trajectory: schedule of the run.
      state: state after the stretch; this function empties `state.window`.
      writer: writes the run's points.
    """
    window = state.window
    optional: dict[str, float | str] = {}
    for name, averages in noise.items():
        if averages.scale is not None and math.isfinite(averages.scale):
            optional[name] = averages.scale
    if metrics.clipped is not None:
        optional["gradient_clipped"] = window["clipped"] / window["updates"]
    if metrics.input_wait is not None:
        optional["input_wait"] = window["input_wait"] / window["seconds"]
    if size := trajectory.image_size(state.last_start):
        optional["image_size"] = size
    if decision:
        optional["decision"] = decision
    writer.write(
        "train",
        state.update,
        state.position,
        epoch=state.position / trajectory.examples,
        loss=window["loss"] / window["examples"],
        top1=window["top1"] / window["examples"],
        **_last_setting(state, trajectory),
        gradient_norm=float(metrics.gradient_norm[-1]),
        examples_per_second=window["examples"] / window["seconds"],
        **optional,
    )
    state.window = {}
    _log_decision(decision, state, trajectory)


def log_evaluations(
    evaluations: Evaluations,
    decision: str | None,
    trajectory: Trajectory,
    state: State,
    writer: MetricsWriter,
) -> None:
    """Logs a point for each evaluation, and prints the evaluations and the controller's decision.

    The `split` of a point is `eval` for the plain parameters, and `eval_ema` for their average. The
    point of the evaluation that the controller received also has the decision.
    """
    epoch, setting = state.position / trajectory.examples, state.setting
    text = (
        f"epoch {epoch:6.2f}  update {state.update:6d}  batch {setting['batch_size']:5d}  "
        f"learning rate {setting['learning_rate']:.4g}"
    )
    for split, evaluation in (("eval", evaluations.plain), ("eval_ema", evaluations.ema)):
        if evaluation is None:
            continue
        decides = evaluation is evaluations.counted
        writer.write(
            split,
            state.update,
            state.position,
            epoch=epoch,
            **dataclasses.asdict(evaluation),
            **_last_setting(state, trajectory),
            **({"decision": decision} if decision and decides else {}),
        )
        text += f"  {split} loss {evaluation.loss:.4f}  top1 {evaluation.top1:.4f}"
    log(text)
    _log_decision(decision, state, trajectory)


def _last_setting(state: State, trajectory: Trajectory) -> dict[str, float]:
    """Returns the batch size, learning rate, momentum and noise scale of the last update."""
    return {**state.setting, "noise_scale": trajectory.noise_scale(Setting(**state.setting))}


def _log_decision(decision: str | None, state: State, trajectory: Trajectory) -> None:
    if decision is not None:
        before, after = Setting(**state.setting), trajectory.at(state.position)
        log(
            f"{decision}; batch {before.batch_size} → {after.batch_size}, "
            f"learning rate {before.learning_rate:.4g} → {after.learning_rate:.4g}"
        )
