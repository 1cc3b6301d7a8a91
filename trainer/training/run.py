"""Trains a whole run: sets it up, trains it, and writes its result."""

import json
import pathlib
from collections.abc import Callable
from typing import Any

from trainer.config.flagfile import shared
from trainer.config.flags import Config
from trainer.data.bad_examples import BadExamples
from trainer.distributed import tpu
from trainer.distributed.multi_worker import worker_session
from trainer.distributed.process_group import create_process_group
from trainer.distributed.worker import Worker
from trainer.errors import NonFiniteLossError
from trainer.run_dir import result as results
from trainer.run_dir.checkpoints import digest
from trainer.run_dir.metrics import read
from trainer.schedule import cost, trajectory
from trainer.system import typed_json
from trainer.system.tensorflow_errors import translate
from trainer.system.typed_json import table_of, text
from trainer.training import setup
from trainer.training.evaluation import Evaluation
from trainer.training.loop import LoopConfig, StopReason, TrainingLoop
from trainer.training.run_setup import Run, set_up


def train(
    config: Config,
    path: pathlib.Path,
    should_stop: Callable[[], bool],
    worker: Worker | None = None,
) -> dict[str, Any] | StopReason | None:
    """Trains to the end, or until the run has to stop; every worker calls this function.

    Args:
      config: flags of the run.
      path: run directory, which the chief alone touches.
      should_stop: returns whether this process was asked to stop.
      worker: this process, if it is one of several.

    Returns:
      The content of result.json, or why the run stopped before its end. None in a worker other
      than the chief, and in all workers if the run had finished before.

    Raises:
      UserError: if the run cannot be set up, or an example cannot be decoded.
      LostWorkerError: if another worker ended or hangs, or the TPU is lost.
      NonFiniteLossError: if training diverges.
    """
    kept = path / "bad_examples.txt" if worker is None or worker.chief else None
    bad = BadExamples(config.skip_bad_examples, kept)
    with (
        worker_session(worker, config.worker_timeout, shared(config)) as exchange,
        translate(tpu.lost(tpu.address(config)), bad.refusal),
    ):
        strategy, lanes = setup.devices(config, worker)
        group = create_process_group(strategy, worker, exchange)
        if group.agree(group.chief and results.ended(path) is not None)[0]:
            return None
        run = set_up(config, path, bad, strategy, lanes, group)
        last = _train(run, config, should_stop)
        if isinstance(last, StopReason):
            return last
        result = _write_result(run, last) if group.chief else None
        # No worker ends before the result is written: a chief that had to be started again would
        # wait for the others.
        group.agree(False)
        return result


def _train(run: Run, config: Config, should_stop: Callable[[], bool]) -> Evaluation | StopReason:
    """Trains, and records the bad examples of all workers; closes the outputs."""
    loop = TrainingLoop(
        _loop_config(run, config),
        run.state,
        run.step,
        run.batches,
        run.evaluator,
        run.outputs,
        run.group,
    )
    error = None
    try:
        last = loop.run(should_stop)
    except NonFiniteLossError as diverged:
        error = diverged  # All processes raise it, once the pending checkpoint is written.
    finally:
        run.outputs.close()
    _, *others = run.group.all_gather(json.dumps(run.bad.reasons))
    for found in others if run.group.chief else []:
        for name, reason in typed_json.parsed(found, table_of(text)).items():
            run.bad.add(name, reason)
    if error:
        raise error
    return last


def _write_result(run: Run, last: Evaluation) -> dict[str, Any]:
    """Writes result.json, and returns its content."""
    state, step = run.state, run.step
    points = [p for p in read(run.path / "metrics.jsonl") if p["split"] == "train"]
    values = setup.values(step.model)
    result = {
        "top1": last.top1,
        "top5": last.top5,
        "loss": last.loss,
        "best": state.best,
        "updates": state.update,
        "position": state.position,
        "epochs": state.position / run.trajectory.examples,
        "seconds": state.seconds,
        "examples_per_second": state.position / state.seconds,
        "update_seconds": cost.medians(points),
        "replicas": step.strategy.num_replicas_in_sync,
        "hosts": run.group.count,
        "parameters": sum(variable.shape.num_elements() for variable in values),
        "input_wait": state.input_wait / state.seconds if step.timed else None,
        "micro_batch_size": run.micro_batch_size,
        "traces": step.traces,
        "resumes": state.resumes,
        "bad_examples": run.bad.count,
        "parameters_sha256": digest(values),
        "versions": setup.versions(),
    }
    results.write(run.path, result)
    return result


def _loop_config(run: Run, config: Config) -> LoopConfig:
    examples = run.trajectory.examples
    stop_at = None
    if config.stop_at_epoch is not None:
        stop_at = trajectory.position_of(config.stop_at_epoch, examples)
    return LoopConfig(
        trajectory=run.trajectory,
        replicas=run.step.strategy.num_replicas_in_sync,
        ghost_batch_size=config.ghost_batch_size,
        micro_batch_size=run.micro_batch_size,
        log_every_updates=config.log_every_updates,
        eval_every_epochs=config.eval_every_epochs,
        checkpoint_seconds=60 * config.checkpoint_minutes,
        noise_horizon=trajectory.noise_horizon(config, examples),
        stop_at=stop_at,
    )
