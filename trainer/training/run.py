"""Trains a whole run: sets it up, runs the training loop, and writes the result."""

import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from trainer.buckets.url import parse
from trainer.config.flagfile import shared
from trainer.config.flags import Config
from trainer.data.bad_examples import BadExamples
from trainer.data.class_names import logit_names
from trainer.distributed import host_monitor, hosts, tpu, tpu_address
from trainer.distributed.multi_worker import worker_session
from trainer.distributed.process_group import create_process_group
from trainer.distributed.worker import Worker
from trainer.errors import NonFiniteLossError
from trainer.run_dir import metrics
from trainer.run_dir import result as results
from trainer.run_dir.checkpoints import digest
from trainer.run_dir.directory import forget_divergence
from trainer.schedule import cost
from trainer.schedule.averaging import evaluated_with
from trainer.system import typed_json
from trainer.system.output import log
from trainer.system.tensorflow_errors import translate
from trainer.system.typed_json import table_of, text
from trainer.training import class_metrics, driving, setup
from trainer.training.evaluation import Evaluation, Predictions
from trainer.training.loop import TrainingLoop
from trainer.training.run_setup import Run, set_up
from trainer.training.stop_reason import StopReason

# Longest time in which the chief restores a run from its bucket, before it connects to the others.
_RESTORE_SECONDS = 900.0
# Function that shows a confusion matrix: (update of the evaluation, names of logits, matrix cells).
ShowConfusion = Callable[[int, Sequence[str], np.ndarray], None]


def train(
    config: Config,
    path: pathlib.Path,
    should_stop: Callable[[], bool],
    worker: Worker | None = None,
    show_confusion: ShowConfusion | None = None,
) -> dict[str, Any] | StopReason | None:
    """Trains to the end of the run, or until the run has to stop; every worker calls this function.

    Args:
      config: flags of the run.
      path: run directory; only the chief, which is the first worker, reads and writes it.
      should_stop: returns whether this process was asked to stop.
      worker: this process as one of several workers; None for a single process.
      show_confusion: shows the confusion matrix of the last evaluation. The chief calls it after
        the result is written, unless the run resumed after that evaluation. Either all workers pass
        this argument, or no worker passes it.

    Returns:
      The content of result.json in the chief, and None in the other workers. If the run stops
      early, all workers get the reason. If the run had finished before this call, all get None.

    Raises:
      UserError: if the run cannot be set up, or an example cannot be decoded.
      LostWorkerError: if another worker ended or hangs, or the TPU is lost.
      NonFiniteLossError: if training diverges.
    """
    chief = worker is None or worker.chief
    bad = BadExamples(config.skip_bad_examples, path / "bad_examples.txt" if chief else None)
    with (
        worker_session(
            worker, config.worker_timeout, shared(config), _chief_start(config)
        ) as exchange,
        host_monitor.watched(tpu_address.hosts_of(config), config.worker_timeout),
        # It asks the monitor which host is lost.
        translate(tpu.lost(tpu_address.address(config)), bad.refusal),
    ):
        strategy, lanes = setup.devices(config, worker)
        group = create_process_group(strategy, worker, exchange)
        if group.agree(chief and results.ended(path) is not None)[0]:
            return None
        with translate(driving.refusal(hosts.from_strategy(strategy))):
            run = set_up(config, path, bad, strategy, lanes, group)
            if chief:
                forget_divergence(path)
            last = _train(run, config, should_stop)
        if isinstance(last, StopReason):
            return last
        predictions = run.evaluator.predictions() if show_confusion else None
        result = _write_result(run, last, config) if chief else None
        if chief and show_confusion:
            _show_confusion(run, predictions, show_confusion)
        # Every worker waits here until the result is written. If the chief fails before that point
        # and is started again, it needs the other workers.
        group.agree(False)
        return result


def _chief_start(config: Config) -> float:
    """Returns the seconds that the chief may need to take a run in a bucket over and restore it."""
    return _RESTORE_SECONDS if parse(config.model_dir or "") else 0.0


def _show_confusion(run: Run, predictions: Predictions | None, show: ShowConfusion) -> None:
    """Calls `show`; if `predictions` is None, logs why TensorBoard lacks the confusion matrix."""
    if predictions is None:
        log(
            "TensorBoard lacks the confusion matrix, because the run resumed after its last "
            "evaluation. To get the matrix, run `evaluate --per_class`."
        )
        return
    logits = run.phases.step.model.output_shape[-1]
    names = logit_names(run.evaluator.source.class_names, logits)
    show(run.state.update, names, class_metrics.confusion(predictions, logits))


def _train(run: Run, config: Config, should_stop: Callable[[], bool]) -> Evaluation | StopReason:
    """Trains, closes the outputs, and records the bad examples of all workers."""
    error = None
    try:
        last = TrainingLoop(config, run).run(should_stop)
    except NonFiniteLossError as diverged:
        error = diverged  # All processes raise this error, so all still call `all_gather` below.
    finally:
        run.outputs.close()
    _, *others = run.group.all_gather(json.dumps(run.bad.reasons))
    for found in others if run.group.chief else []:
        for name, reason in typed_json.parsed(found, table_of(text)).items():
            run.bad.add(name, reason)
    driving.add_bad_examples(run.phases.step.strategy, run.bad)
    if error:
        raise error
    return last


def _write_result(run: Run, last: Evaluation, config: Config) -> dict[str, Any]:
    """Writes result.json, and returns its content.

    `last` is the evaluation that counts, of the parameters or of their average.
    """
    state, step = run.state, run.phases.step
    points = [p for p in metrics.read(run.path / metrics.FILE) if p["split"] == "train"]
    values, average = setup.values(step.model), step.average
    image_size = run.trajectory.image_size(state.last_start)
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
        # With --workers, the points do not tell how many workers an update had.
        "update_seconds": {} if config.workers else cost.medians(points),
        "replicas": step.strategy.num_replicas_in_sync,
        "hosts": max(run.group.count, len(hosts.from_strategy(step.strategy))),
        "parameters": sum(variable.shape.num_elements() for variable in values),
        "input_wait": state.input_wait / state.seconds if step.timed else None,
        "micro_batch_size": run.micro_batch_sizes[image_size],
        "traces": step.traces,
        "resumes": state.resumes,
        "bad_examples": run.bad.count,
        "parameters_sha256": digest(values),
        "versions": setup.versions(),
    }
    if image_size:
        result["image_size"] = image_size  # `update_seconds` was measured at this size.
    if average:
        result |= {
            "evaluated_with": evaluated_with(config),
            "plain": state.evaluation["plain"],
            "ema": state.evaluation["ema"],
            "averages_sha256": digest(average.variables),
        }
    results.write(run.path, result)
    return result
