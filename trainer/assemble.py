"""From a Config to a whole run: devices, data, schedule, model, step and loop put together."""

import importlib.metadata
import pathlib
import platform
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from trainer import loop, micro_batch
from trainer.cluster import strategy as cluster
from trainer.config import Config, UserError
from trainer.data import pipeline, sources
from trainer.data.bad_examples import BadExamples
from trainer.data.encoded import Encoded
from trainer.data.images import Images
from trainer.evaluation import evaluator
from trainer.flagfile import to_flagfile
from trainer.nn.models import registry
from trainer.run_dir import directory
from trainer.run_dir.checkpoints import Checkpoints, digest
from trainer.run_dir.progress import Progress
from trainer.run_dir.summaries import Summaries
from trainer.schedule import plan, trajectory
from trainer.schedule.layout import unmeasured
from trainer.state import restore
from trainer.step import TrainingStep


def train(config: Config, path: pathlib.Path, stopped: Callable[[], bool]) -> dict[str, Any] | None:
    """Trains to the end and returns what result.json holds; None where `stopped` came before.

    Raises:
      UserError: for what cannot be trained, before any training; for an example that cannot be
        decoded, when it is met.
    """
    bad = BadExamples(config.skip_bad_examples, path / "bad_examples.txt", Progress.line)
    with bad.explained():
        return _train(config, path, stopped, bad)


def _train(
    config: Config, path: pathlib.Path, stopped: Callable[[], bool], bad: BadExamples
) -> dict[str, Any] | None:
    strategy, lanes = cluster.connect(
        config.strategy,
        virtual_devices=config.virtual_devices,
        deterministic=config.deterministic,
        ghost_batch_size=config.ghost_batch_size,
    )
    replicas = strategy.num_replicas_in_sync
    training, evaluation = (
        sources.load(
            config.dataset,
            split,
            config.data_dir,
            config.image_size,
            augment=config.augment,
            train_split=config.train_split,
            bad=bad,
        )
        for split in (config.train_split, sources.evaluation_split(config))
    )
    examples = training.examples
    if config.train_examples not in (None, examples):
        raise UserError(
            f"--train_examples={config.train_examples}, but {config.dataset}'s "
            f"{config.train_split!r} has {examples}: leave it out, it is for `plan`."
        )
    schedule = trajectory.from_config(config, examples, replicas)
    model = _model(config, training, strategy, bad)
    step = TrainingStep(
        strategy,
        model,
        optimizer=config.optimizer,
        weight_decay=config.weight_decay,
        label_smoothing=config.label_smoothing,
        seed=config.seed,
        lanes=lanes,
        timed=not config.deterministic,
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
                local_replicas=range(replicas),
                bad=bad,
            )
        )

    largest = (schedule.micro_batch_size or config.micro_batch_size) or (
        unmeasured(config.ghost_batch_size)
        if config.deterministic
        else micro_batch.choose(
            path / "micro_batch.json",
            step,
            batches,
            limits=schedule.limits,
            ghost_batch_size=config.ghost_batch_size,
            model=config.model,
            report=print,
        )
    )
    table = _table(schedule, replicas, config.ghost_batch_size, largest)
    print(plan.uncertain(config) + table, flush=True)

    variables = {"weights": _values(model), "slots": [slot for s in step.slots for slot in s]}
    checkpoints = Checkpoints(
        path / "checkpoints", variables, keep=config.keep_checkpoints, report=Progress.line
    )
    state = restore(checkpoints)
    if state.resumes:
        print(f"resumed at update {state.update}, epoch {state.position / examples:.2f}")
    directory.keep_flags(path, to_flagfile(config))
    summaries = Summaries(path, update=state.update, report=Progress.line)
    progress = Progress(state.position, schedule.end)
    try:
        last = loop.train(
            loop.Course(
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
            evaluator(strategy, model, evaluation, lanes, config.augment, bad),
            checkpoints,
            summaries,
            progress,
            stopped,
        )
    finally:
        checkpoints.wait()
        progress.close()
        summaries.close()
    if last is None:
        return None
    return {
        "top1": last.top1,
        "top5": last.top5,
        "loss": last.loss,
        "best": state.best,
        "updates": state.update,
        "position": state.position,
        "epochs": state.position / examples,
        "seconds": state.seconds,
        "examples_per_second": state.position / state.seconds,
        "input_wait": None if config.deterministic else state.input_wait / state.seconds,
        "micro_batch_size": largest,
        "traces": step.traces,
        "resumes": state.resumes,
        "bad_examples": bad.count,
        "parameters_sha256": digest(_values(model)),
        "versions": {
            "python": platform.python_version(),
            "crescendo": importlib.metadata.version("crescendo"),
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
        },
    }


def _model(
    config: Config,
    source: Images | Encoded,
    strategy: tf.distribute.Strategy,
    bad: BadExamples,
) -> keras.Model:
    classes = config.num_classes or source.classes
    if classes < source.classes:
        raise UserError(
            f"--num_classes={classes} is below the {source.classes} classes of {config.dataset}: "
            "leave it out, or raise it."
        )
    mean, std = sources.image_statistics(source, config.augment, bad)
    with strategy.scope():
        return registry.build(
            config.model,
            image_shape=source.image_shape,
            classes=classes,
            mean=mean,
            std=std,
            seed=config.seed,
            ghost_batch_size=config.ghost_batch_size,
            ghost_decay=config.ghost_decay,
            kernel="fused" if cluster.on_cpu(strategy) else "reshaped",
            precision=config.precision,
        )


def _values(model: keras.Model) -> list[tf.Variable]:
    """The model's parameters and moving statistics, in its own order."""
    return [variable.value for variable in model.weights]


def _table(
    schedule: trajectory.Trajectory, replicas: int, ghost_batch_size: int, micro_batch_size: int
) -> str:
    """The plan, and where it leaves the gradient noise unmeasured."""
    phases = list(
        plan.phases(
            schedule,
            replicas=replicas,
            ghost_batch_size=ghost_batch_size,
            micro_batch_size=micro_batch_size,
        )
    )
    whole = {phase.batch_size for phase in phases if phase.micro_batch_size == phase.batch_size}
    lines = [
        f"the gradient noise scale is not measured at batch {size}, which is one micro-batch"
        + ("" if size == ghost_batch_size else ": a smaller --micro_batch_size measures it")
        for size in sorted(whole)
    ]
    return "\n".join([plan.table(phases), *lines])
