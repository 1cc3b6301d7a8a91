"""Prepares a training run: data, model, micro-batch size, newest checkpoint and outputs."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

from trainer.config.flags import Config
from trainer.config.run_flags import NEWEST_ORDER
from trainer.data.bad_examples import BadExamples
from trainer.distributed import hosts
from trainer.distributed.process_group import ProcessGroup
from trainer.distributed.strategy import compiles_by_xla, is_tpu, on_cpu
from trainer.nn import freezing, layer_groups, model_configuration, normalization
from trainer.nn.losses import Loss, TrainingLoss
from trainer.nn.transfer import Transfer
from trainer.run_dir import directory, training_data
from trainer.run_dir.checkpoints import Checkpoints, NoCheckpoints
from trainer.run_dir.training_data import TrainingData
from trainer.schedule import averaging, trajectory, worker_counts
from trainer.system import memory
from trainer.system.output import log
from trainer.training import (
    balance,
    batches,
    driving,
    fork,
    micro_batch_search,
    origin,
    precision,
    pretrained,
    run_plan,
    setup,
)
from trainer.training.averaging import ModelAverage
from trainer.training.evaluation import Evaluator
from trainer.training.fork_state import restore as restore_fork
from trainer.training.outputs import Outputs, open_outputs
from trainer.training.phases import Phases
from trainer.training.state import State, restore, share
from trainer.training.step import TrainingStep


@dataclasses.dataclass(frozen=True)
class Run:
    """A run that is ready to train.

    Attributes:
      path: run directory.
      bad: records examples that cannot be decoded.
      group: the processes that train together.
      trajectory: schedule of the run.
      phases: training steps before and after layers are unfrozen; each step has the model.
      batches: maps (examples consumed, micro-batch size, image size) to a dataset of micro-batches.
      evaluator: evaluates the model on the evaluation split.
      micro_batch_sizes: largest micro-batch of a replica, in examples, by image size in pixels.
      state: progress of the run.
      outputs: checkpoints, log and progress bar.
    """

    path: pathlib.Path
    bad: BadExamples
    group: ProcessGroup
    trajectory: trajectory.Trajectory
    phases: Phases
    batches: batches.Batches
    evaluator: Evaluator
    micro_batch_sizes: dict[int | None, int]
    state: State
    outputs: Outputs


def set_up(
    config: Config,
    path: pathlib.Path,
    bad: BadExamples,
    strategy: tf.distribute.Strategy,
    lanes: int,
    group: ProcessGroup,
) -> Run:
    """Loads the data, builds the model, restores the newest checkpoint and opens the outputs.

    Args:
      config: flags of the run.
      path: run directory.
      bad: records examples that cannot be decoded.
      strategy: distributes the training over the replicas.
      lanes: number of parts of a micro-batch that a replica computes in parallel.
      group: the processes that train together.

    Raises:
      UserError: if the data, model, schedule or checkpoints cannot be used.
    """
    config = _with_order_version(config, path, group)
    config = precision.resolved(config, path, group)
    replicas = strategy.num_replicas_in_sync
    kept = path if group.chief else None  # Other workers do not read the run directory.
    # The origin is checked before the data are read, because reading may take minutes.
    begun_from = origin.find(config, path, group)
    parent = begun_from.parent if begun_from else None
    examples, validation = setup.load_splits(config, kept, bad, group)
    found_hosts = hosts.from_strategy(strategy)
    driving.start(config, found_hosts, examples, validation)
    schedule = worker_counts.schedule_of(config, examples.examples, replicas, group.count)
    forked = origin.lineage_of(begun_from, config, path, schedule) if kept else None
    data = setup.training_data_of(config, kept, bad, examples)
    balanced = balance.from_config(config, examples, data, bad, group)
    before = memory.memory_usage(strategy.extended.worker_devices)
    data, model, loaded = _model(config, data, strategy, group, begun_from)
    data = dataclasses.replace(data, class_weights=balanced.weights, class_sizes=balanced.sizes)
    until = trajectory.unfreeze_position(config, examples.examples)
    own = model_configuration.of_user(config.model, model)  # Must precede the freezing of layers.
    phases = _phases(config, strategy, model, lanes, until, data.class_weights, group)
    stream = batches.stream(config, examples, bad, balanced)
    training_batches = batches.training(stream, replicas, group, found_hosts)
    new = functools.partial(restore_fork, parent, config, phases, schedule) if parent else None
    checkpoints, state = _restore(config, path, phases, data, own, group, new)
    # The search may compile the model, so it follows the last assignment to the weights.
    micro_batch_sizes = micro_batch_search.from_config(
        config, path, schedule, phases.step_of_all, training_batches, group, before, replicas
    )
    begin = fork.begin(config, forked)
    log(run_plan.text(config, schedule, replicas, group.count, micro_batch_sizes, begin))
    fork.start_average(phases.step.average, forked, group)
    if parent and forked:
        fork.keep(path, forked)
    outputs = open_outputs(
        config, path, checkpoints, state, data, end=schedule.end, chief=group.chief
    )
    if begun_from:
        origin.keep(begun_from, loaded, path, outputs, state)
    evaluator = Evaluator(
        *(strategy, model, validation, lanes, config.augment, bad, group),
        loss=Loss.from_config(config),
    )
    return Run(
        *(path, bad, group, schedule, phases, training_batches),
        *(evaluator, micro_batch_sizes, state, outputs),
    )


def _model(
    config: Config,
    data: TrainingData,
    strategy: tf.distribute.Strategy,
    group: ProcessGroup,
    begun_from: origin.Origin | None,
) -> tuple[TrainingData, keras.Model, Transfer | None]:
    """Builds the model, and loads the pretrained weights of the origin, if any, into it.

    Returns:
      `data` with the chief's preprocessing; the model; and the loaded weights, or None.
    """
    if begun_from:
        data = begun_from.preprocessed(data, config.model)
    data, loaded = _chiefs(data, group), None
    model = setup.build(config, data, strategy, to_train=True)
    if begun_from and begun_from.source:
        loaded = pretrained.load(config, data, begun_from.source, model)
    if config.freeze and begun_from and not begun_from.parent:
        for line in freezing.warnings(config.freeze, model, loaded):
            log(line)
    return data, model, loaded


def _phases(
    config: Config,
    strategy: tf.distribute.Strategy,
    model: keras.Model,
    lanes: int,
    until: int | None,
    class_weights: Sequence[float] | None,
    group: ProcessGroup,
) -> Phases:
    """Freezes the layers of --freeze, and returns the phases; the first phase ends at `until`."""
    if config.layer_decay != 1:
        log(layer_groups.table(model, config.layer_decay))
    frozen = freezing.freeze(model, config.freeze) if config.freeze and until != 0 else []
    if frozen:
        log(freezing.summary(model, len(frozen)))
    average = None
    if config.ema_decay is not None:
        average = ModelAverage(
            strategy, model, decay=config.ema_decay, base_batch_size=config.base_batch_size
        )
    by_xla = compiles_by_xla(strategy, config.xla, deterministic=config.deterministic)
    if by_xla:
        log("XLA compiles the training step")
    new_step = functools.partial(
        TrainingStep,
        strategy,
        model,
        optimizer=config.optimizer,
        weight_decay=config.weight_decay,
        clip_norm=config.clip_norm,
        loss=TrainingLoss(
            Loss.from_config(config),
            config.label_smoothing,
            config.sigmoid_threshold,
            class_weights,
        ),
        seed=config.seed,
        layer_decay=config.layer_decay,
        order_version=config.order_version or NEWEST_ORDER,
        ghost_batch_size=config.ghost_batch_size,
        lanes=lanes,
        # On a GPU or TPU, reading a clock would wait for all work that is already enqueued.
        timed=not config.deterministic and on_cpu(strategy),
        by_xla=by_xla,
        ahead=not (on_cpu(strategy) or is_tpu(strategy)),
        agree=lambda failed: group.agree(failed)[0],
        average=average,
    )
    return Phases(new_step, frozen, until, new_step())


def _chiefs(data: TrainingData, group: ProcessGroup) -> TrainingData:
    """Returns `data` with the chief's preprocessing; only the chief reads saved preprocessing."""
    mean, std = group.broadcast(np.array([data.mean, data.std])).tolist()  # [2, c]
    preprocessing = group.broadcast_text(data.preprocessing or "") or None
    return dataclasses.replace(data, mean=tuple(mean), std=tuple(std), preprocessing=preprocessing)


def _with_order_version(config: Config, path: pathlib.Path, group: ProcessGroup) -> Config:
    """Returns `config` with the chief's order version, which decides the order of the examples."""
    own = directory.order_version(path, config) if group.chief else 0
    _, (version,) = group.agree(False, own)
    if version != NEWEST_ORDER:
        origin = "as asked for" if config.order_version else "from its flags.txt"
        log(f"this run has order version {version}, {origin}; new runs have {NEWEST_ORDER}")
    return dataclasses.replace(config, order_version=version)


def _restore(
    config: Config,
    path: pathlib.Path,
    phases: Phases,
    data: TrainingData,
    configuration: str | None,
    group: ProcessGroup,
    fork_state: Callable[[], State] | None,
) -> tuple[Checkpoints, State]:
    """Restores the newest checkpoint in all processes; returns the checkpoints and the state.

    If the run begins as a fork, `fork_state` restores the other run's checkpoint instead.

    Raises:
      UserError: if the run began with other training data, or the checkpoint cannot be used.
    """
    checkpoints = (
        Checkpoints(path / "checkpoints", phases.variables(), keep=config.keep_checkpoints)
        if group.chief
        else NoCheckpoints()
    )
    state = share(fork_state() if fork_state else restore(checkpoints, phases), phases, group)
    if state.normalization_refreshed:
        normalization.refresh(phases.step.model)
    checkpoints.variables, step = phases.variables(), phases.step
    step.starts = state.statistics_starts or {}
    training_data.check_learned(state.training_data, data, path / training_data.FILE)
    state.training_data = data.as_json()
    if state.resumes:
        log(f"resumed at update {state.update}, epoch {state.position / data.examples:.2f}")
    model_configuration.compare(config.model, configuration, state.model_configuration)
    state.model_configuration = state.model_configuration or configuration
    counted = (state.best or {}).get("evaluated_with")
    if counted and counted != averaging.evaluated_with(config):
        log(
            f"--evaluate_with was {counted} so far: the best evaluation is chosen from those that "
            "follow"
        )
    return checkpoints, state
