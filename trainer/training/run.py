"""From a Config to a whole run: devices, data, schedule, model, step and loop put together."""

import dataclasses
import itertools
import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from trainer.config.flagfile import shared, to_flagfile
from trainer.config.flags import Config
from trainer.config.run_flags import NEWEST_ORDER
from trainer.data import pipeline
from trainer.data.bad_examples import BadExamples
from trainer.distributed import tpu
from trainer.distributed.multi_worker import worker_session
from trainer.distributed.process_group import ProcessGroup, create_process_group
from trainer.distributed.strategy import is_tpu
from trainer.distributed.worker import Worker
from trainer.errors import NonFiniteLossError
from trainer.run_dir import directory, training_data
from trainer.run_dir.checkpoints import Checkpoints, NoCheckpoints, digest
from trainer.run_dir.metrics import read
from trainer.run_dir.metrics_writer import MetricsWriter, NoMetricsWriter
from trainer.run_dir.result import ended
from trainer.run_dir.training_data import TrainingData
from trainer.schedule import cost, plan, trajectory
from trainer.schedule.layout import default_micro_batch_size, lay_out
from trainer.system import typed_json
from trainer.system.atomic_file import write_json
from trainer.system.output import width
from trainer.system.typed_json import table_of, text
from trainer.training import loop, micro_batch_search
from trainer.training.evaluation import Evaluation, evaluator
from trainer.training.progress import Progress, line
from trainer.training.setup import (
    build,
    configuration,
    devices,
    load_splits,
    say_if_edited,
    training_data_of,
    values,
    versions,
)
from trainer.training.state import restore, share
from trainer.training.step import TrainingStep


def train(
    config: Config,
    path: pathlib.Path,
    stopped: Callable[[], bool],
    worker: Worker | None = None,
) -> dict[str, Any] | loop.StopReason | None:
    """Trains to the end and returns what result.json then holds; or why it ended before.

    Of several workers, each calls it, and the chief alone touches `path` and has the result; the
    others get None. Where the run has ended before, nothing is trained, and all get None.

    Raises:
      UserError: for what cannot be trained, before any training; for an example that cannot be
        decoded, when it is met.
      LostWorkerError: where another worker has left, or hangs, or the TPU is lost.
    """
    kept = path / "bad_examples.txt" if worker is None or worker.chief else None
    bad = BadExamples(config.skip_bad_examples, kept, line)
    with (
        worker_session(worker, config.worker_timeout, shared(config)),
        tpu.watched(tpu.address(config)),
        bad.explained(),
    ):
        return _train(config, path, stopped, bad, worker)


def _train(
    config: Config,
    path: pathlib.Path,
    stopped: Callable[[], bool],
    bad: BadExamples,
    worker: Worker | None,
) -> dict[str, Any] | loop.StopReason | None:
    strategy, lanes = devices(config, worker)
    replicas = strategy.num_replicas_in_sync
    hosts = create_process_group(strategy, worker)
    report = line if hosts.chief else _discard
    if hosts.agree(hosts.chief and ended(path) is not None)[0]:
        return None
    config = _with_order_version(config, path, hosts, report)
    kept = path if hosts.chief else None
    training, evaluation = load_splits(config, kept, bad, hosts, report)
    examples = training.examples
    schedule = trajectory.from_config(config, examples, replicas)
    data = _broadcast_normalisation(training_data_of(config, kept, bad, training, report), hosts)
    model = build(config, data, strategy)
    step = TrainingStep(
        strategy,
        model,
        optimizer=config.optimizer,
        weight_decay=config.weight_decay,
        label_smoothing=config.label_smoothing,
        seed=config.seed,
        order_version=config.order_version or NEWEST_ORDER,
        lanes=lanes,
        # A TPU is given work ahead: a clock on the host says when, and not how long it takes.
        timed=not config.deterministic and not is_tpu(strategy),
    )

    def batches(position: int, micro_batch_size: int) -> Iterator[Any]:
        return iter(
            pipeline.training(
                training,
                augment=config.augment,
                seed=config.seed,
                position=position,
                micro_batch_size=micro_batch_size,
                replicas=replicas,
                local_replicas=hosts.local(replicas),
                bad=bad,
                order_version=config.order_version or NEWEST_ORDER,
            )
        )

    largest = _micro_batch_size(config, path, schedule, step, batches, hosts, report)
    report(plan.uncertain(config) + _table(schedule, replicas, config.ghost_batch_size, largest))

    variables = {"weights": values(model), "slots": [slot for s in step.slots for slot in s]}
    checkpoints = (
        Checkpoints(path / "checkpoints", variables, keep=config.keep_checkpoints, report=report)
        if hosts.chief
        else NoCheckpoints()
    )
    state = share(restore(checkpoints, step), itertools.chain(*variables.values()), hosts)
    step.starts = state.statistics_starts or {}
    training_data.check_learned(state.training_data, data, path / training_data.FILE)
    state.training_data = data.as_json()
    say_if_edited(config, model, state.model_configuration, report)
    state.model_configuration = state.model_configuration or configuration(config, model)
    if state.resumes:
        report(f"resumed at update {state.update}, epoch {state.position / examples:.2f}")
    summaries: MetricsWriter = NoMetricsWriter()
    if hosts.chief:
        directory.keep_flags(path, to_flagfile(config))
        training_data.keep(path, data)
        summaries = MetricsWriter(path, update=state.update, report=report)
    progress = Progress(state.position, schedule.end, shown=hosts.chief, report=report)
    last: Evaluation | loop.StopReason | NonFiniteLossError
    try:
        last = loop.train(
            loop.LoopConfig(
                trajectory=schedule,
                replicas=replicas,
                ghost_batch_size=config.ghost_batch_size,
                micro_batch_size=largest,
                log_every_updates=config.log_every_updates,
                eval_every_epochs=config.eval_every_epochs,
                checkpoint_seconds=60 * config.checkpoint_minutes,
                noise_horizon=trajectory.noise_horizon(config, examples),
                stop_at=None
                if config.stop_at_epoch is None
                else trajectory.position_of(config.stop_at_epoch, examples),
            ),
            state,
            step,
            batches,
            evaluator(strategy, model, evaluation, lanes, config.augment, bad, hosts),
            checkpoints,
            summaries,
            progress,
            stopped,
            hosts,
        )
    except NonFiniteLossError as error:
        last = error  # Of all at once; nobody leaves while a checkpoint is being written.
    finally:
        checkpoints.wait()
        progress.close()
        summaries.close()
    _, *others = hosts.all_gather(json.dumps(bad.reasons))
    if hosts.chief:
        for found in others:
            for name, reason in typed_json.parsed(found, table_of(text)).items():
                bad.add(name, reason)
    if isinstance(last, NonFiniteLossError):
        raise last
    if isinstance(last, loop.StopReason):
        return last
    result = None
    if hosts.chief:
        result = {
            "top1": last.top1,
            "top5": last.top5,
            "loss": last.loss,
            "best": state.best,
            "updates": state.update,
            "position": state.position,
            "epochs": state.position / examples,
            "seconds": state.seconds,
            "examples_per_second": state.position / state.seconds,
            "update_seconds": cost.medians(
                p for p in read(path / "metrics.jsonl") if p["split"] == "train"
            ),
            "replicas": replicas,
            "hosts": hosts.count,
            "parameters": sum(variable.shape.num_elements() for variable in values(model)),
            "input_wait": state.input_wait / state.seconds if step.timed else None,
            "micro_batch_size": largest,
            "traces": step.traces,
            "resumes": state.resumes,
            "bad_examples": bad.count,
            "parameters_sha256": digest(values(model)),
            "versions": versions(),
        }
        write_json(path / "result.json", result)
    # Nobody leaves before: a chief that has to be started again would wait for the others.
    hosts.agree(False)
    return result


def _with_order_version(
    config: Config, path: pathlib.Path, hosts: ProcessGroup, report: Callable[[str], None]
) -> Config:
    """`config` with the order version of the run in `path`, which the chief reads for all."""
    own = directory.order_version(path, config) if hosts.chief else 0
    _, (version,) = hosts.agree(False, own)
    if version != NEWEST_ORDER:
        origin = "as asked for" if config.order_version else "from its flags.txt"
        report(f"this run has order version {version}, {origin}; new runs have {NEWEST_ORDER}")
    return dataclasses.replace(config, order_version=version)


def _micro_batch_size(
    config: Config,
    path: pathlib.Path,
    schedule: trajectory.Trajectory,
    step: TrainingStep,
    batches: Callable[[int, int], Iterator[Any]],
    hosts: ProcessGroup,
    report: Callable[[str], None],
) -> int:
    """The largest that the run may take: what is learned with, what the user says, or measured."""
    largest = schedule.micro_batch_size or config.micro_batch_size
    if not largest and config.deterministic:
        largest = default_micro_batch_size(config.ghost_batch_size)
    if largest:
        return largest
    if hosts.chief:
        largest = micro_batch_search.choose(
            path / "micro_batch.json",
            step,
            batches,
            limits=schedule.limits,
            ghost_batch_size=config.ghost_batch_size,
            model=config.model,
            report=report,
        )
    _, (largest,) = hosts.agree(False, largest)
    return largest


def _discard(_: str) -> None:
    """Where the chief says it."""


def _broadcast_normalisation(data: TrainingData, hosts: ProcessGroup) -> TrainingData:
    """Normalised as the chief does, which may go on with what a run was begun with."""
    mean, std = hosts.broadcast(np.array([data.mean, data.std])).tolist()  # [2, c]
    return dataclasses.replace(data, mean=tuple(mean), std=tuple(std))


def _table(
    schedule: trajectory.Trajectory, replicas: int, ghost_batch_size: int, micro_batch_size: int
) -> str:
    """The plan, and where it leaves the gradient noise unmeasured."""
    ramps = plan.ramps(
        schedule, lambda size: lay_out(size, replicas, ghost_batch_size, micro_batch_size)
    )
    phases = [ramp.first for ramp in ramps]
    whole = {phase.batch_size for phase in phases if phase.micro_batch_size == phase.batch_size}
    lines = [
        f"the gradient noise scale is not measured at batch {size}, which is one micro-batch"
        + ("" if size == ghost_batch_size else ": a smaller --micro_batch_size measures it")
        for size in sorted(whole)
    ]
    return "\n".join([plan.table(ramps, width=width()), *lines])
