"""The devices, data and model of a run: the same for who trains, evaluates and exports it."""

import dataclasses
import json
import pathlib
import platform
from collections.abc import Sequence

import keras
import tensorflow as tf

from trainer import __version__
from trainer.config.flags import Config
from trainer.data import image_folder, sources, split_overlap
from trainer.data.bad_examples import BadExamples
from trainer.data.class_names import few
from trainer.data.in_memory import InMemoryDataset
from trainer.data.indexed import IndexedDataset
from trainer.distributed import strategy as cluster
from trainer.distributed import tpu
from trainer.distributed.process_group import ProcessGroup
from trainer.distributed.worker import Worker
from trainer.errors import UserError
from trainer.nn.model_configuration import fingerprint
from trainer.nn.models import registry
from trainer.run_dir import checkpoint_reader, training_data
from trainer.run_dir.checkpoint_progress import checked
from trainer.run_dir.training_data import TrainingData
from trainer.system import typed_json
from trainer.system.output import log
from trainer.system.typed_json import anything, list_of


def devices(config: Config, worker: Worker | None = None) -> tuple[tf.distribute.Strategy, int]:
    """The strategy that `config` asks for, and its lanes; call once, before TensorFlow computes.

    With `worker`, one of several, it waits for the others.

    Raises:
      UserError: where this machine cannot have it.
    """
    return cluster.connect(
        config.strategy,
        virtual_devices=config.virtual_devices,
        deterministic=config.deterministic,
        ghost_batch_size=config.ghost_batch_size,
        worker=worker,
        worker_timeout=config.worker_timeout,
        on_tpu=tpu.address(config),
    )


def load(
    config: Config, split: str, bad: BadExamples, class_names: Sequence[str] | None = None
) -> InMemoryDataset | IndexedDataset:
    """A split of the run's dataset, as the run reads it.

    Labels are places in the run's `class_names`; None: the split's own classes.

    Raises:
      UserError: where there is no such split, or it cannot be read.
    """
    return sources.load(
        config.dataset,
        split,
        config.data_dir,
        config.image_size,
        augment=config.augment,
        class_names=class_names,
        max_pixels=config.max_image_pixels,
        bad=bad,
    )


def load_splits(
    config: Config,
    path: pathlib.Path | None,
    bad: BadExamples,
    group: ProcessGroup,
) -> tuple[InMemoryDataset | IndexedDataset, InMemoryDataset | IndexedDataset]:
    """Returns the examples to train on, and those to evaluate on, which all processes read.

    Raises:
      UserError: if one of them cannot be read or differs between processes, or the training data
        are not those that the run in `path` began with.
    """
    log(f"reading {config.dataset} {config.train_split}")
    training = load(config, config.train_split, bad)
    log(training.summary)
    # Before the evaluation is read: of a renamed class, it would be called the unknown one.
    if path and (kept := training_data.read(path)):
        _check_same_data(config, kept, training)
    evaluation_split = sources.evaluation_split(config)
    log(f"reading {config.dataset} {evaluation_split}")
    evaluation = load(config, evaluation_split, bad, training.class_names)
    log(evaluation.summary)
    both = (config.train_split, training), (evaluation_split, evaluation)
    for warning in split_overlap.warnings(config.dataset, config.data_dir, *both):
        log(warning)
    if config.train_examples not in (None, training.examples):
        raise UserError(
            f"--train_examples={config.train_examples}, but {config.dataset}'s "
            f"{config.train_split!r} has {training.examples}: leave it out, it is for `plan`."
        )
    for source in (training, evaluation):
        has = f"{source.examples:,} examples, {source.classes} classes, shape {source.image_shape}"
        (first, names), *others = (
            typed_json.parsed(each, list_of(anything, 2))
            for each in group.all_gather(json.dumps([has, source.class_names]))
        )
        for index, (other, other_names) in enumerate(others, start=1):
            if other != first:
                raise UserError(
                    f"of {source.name}, worker {index} has {other},\n"
                    f"and worker 0 {first}: give all the same data."
                )
            if other_names != names:
                raise UserError(
                    f"of {source.name}, worker {index} has the classes {few(other_names)},\n"
                    f"and worker 0 {few(names)}: give all the same data."
                )
    return training, evaluation


def training_data_of(
    config: Config,
    path: pathlib.Path | None,
    bad: BadExamples,
    source: InMemoryDataset | IndexedDataset | None = None,
) -> TrainingData:
    """Returns what the run in `path` keeps of its training data, or makes it from the data.

    Args:
      path: of the run; None, or a run that keeps nothing yet: it is made from the data.
      source: the training split, for a caller that has loaded it: what the run keeps is compared
        with it. Otherwise it is loaded only if it is needed.

    Raises:
      UserError: the run began with other data, or they are needed and cannot be read.
    """
    kept = training_data.read(path) if path else None
    if kept is not None and source is None:
        return kept
    source = source or load(config, config.train_split, bad)
    names = source.class_names
    if kept is None:
        statistics = sources.image_statistics(source, config.augment, bad)
        return TrainingData(source.examples, source.image_shape, source.classes, *statistics, names)
    _check_same_data(config, kept, source)
    if kept.class_names is None:
        log(f"this run kept no class names, and takes those of its data: {few(names)}")
    return dataclasses.replace(kept, class_names=names)


def _check_same_data(
    config: Config, kept: TrainingData, source: InMemoryDataset | IndexedDataset
) -> None:
    """Refuses training data that differ in size or classes from what the run began with."""
    split = f"{config.dataset}'s {config.train_split!r}"
    now = source.examples, source.image_shape, source.classes
    began = kept.examples, kept.image_shape, kept.classes
    if began != now:
        of_folder = config.dataset.startswith(image_folder.PREFIX)
        raise UserError(
            f"{split} is not what this run began with: it had "
            "{:,} examples of shape {} in {} classes, and has {:,} of {} in {}.\n"
            "{}Bring the data back, with --data_dir, or name a new --model_dir.".format(
                *began, *now, f"{image_folder.WHAT_COUNTS} " if of_folder else ""
            )
        )
    before, names = kept.class_names, source.class_names
    if before not in (None, names):
        lost, new = (
            few([name for name in some if name not in others]) or "none"
            for some, others in ((before, names), (names, before))
        )
        raise UserError(
            f"{split} has other classes than this run began with, or in another order: missing "
            f"{lost}; new {new}.\n"
            "Rename them back, or name a new --model_dir."
        )


def build(config: Config, data: TrainingData, strategy: tf.distribute.Strategy) -> keras.Model:
    """The model of a run with that training data; its weights are those of the start.

    It takes images of --image_size, or of the training data's size.

    Raises:
      UserError: where there is no such model.
    """
    classes = config.num_classes or data.classes
    if classes < data.classes:
        raise UserError(
            f"--num_classes={classes} is below the {data.classes} classes of {config.dataset}: "
            "leave it out, or raise it."
        )
    h, w, c = data.image_shape
    assert config.precision is not None  # The command line has resolved it.
    with strategy.scope():
        return registry.build(
            config.model,
            image_shape=(config.image_size or h, config.image_size or w, c),
            classes=classes,
            mean=data.mean,
            std=data.std,
            seed=config.seed,
            ghost_batch_size=config.ghost_batch_size,
            ghost_decay=config.ghost_decay,
            kernel="fused" if cluster.on_cpu(strategy) else "reshaped",
            precision=config.precision,
        )


def configuration(config: Config, model: keras.Model) -> str | None:
    """Returns a fingerprint of the configuration of a model of the user's own; else None."""
    return fingerprint(model) if ":" in config.model else None


def log_if_edited(config: Config, model: keras.Model, learned: str | None) -> None:
    """Logs whether the model's configuration differs from the one that the checkpoint `learned`.

    Shapes that differ are refused when the checkpoint is read; an activation has none.
    """
    if learned is not None and configuration(config, model) != learned:
        log(
            f"--model={config.model} is not configured as when this run began: its code, or Keras, "
            "has changed since"
        )


def restore(
    config: Config,
    folder: pathlib.Path,
    strategy: tf.distribute.Strategy,
    bad: BadExamples,
) -> tuple[keras.Model, TrainingData, pathlib.Path, int]:
    """Returns the model of a checkpoint of the run in `folder`.

    Also returns the training data, the checkpoint's path and its update.

    Raises:
      UserError: if there is no such checkpoint, or it learned with other values than the run keeps.
    """
    data = training_data_of(config, folder, bad)
    model = build(config, data, strategy)
    variables = {"weights": values(model)}
    path, progress = checkpoint_reader.load(
        folder / "checkpoints", config.checkpoint, variables, log
    )
    learned = checked(progress, f"checkpoint {path}").get("training_data", {})
    training_data.check_learned(learned, data, folder / training_data.FILE)
    log_if_edited(config, model, progress.get("model_configuration"))
    return model, data, path, progress["update"]


def class_names(config: Config, kept: Sequence[str] | None, classes: int | None) -> Sequence[str]:
    """Returns the names of a trained model's classes: the kept ones, or the training split's.

    Args:
      config: of the model; its --dataset may be another than was trained on.
      kept: the names that are kept with the model; None in one from before they were.
      classes: how many the model has learned, if that is known.

    Raises:
      UserError: none are kept, and there is no such split, or it has another number of classes.
    """
    if kept is not None:
        return kept
    names = sources.class_names(config.dataset, config.train_split, config.data_dir)
    split = f"{config.dataset}'s {config.train_split!r}"
    if classes not in (None, len(names)):
        raise UserError(
            f"the model keeps no class names, and has learned {classes} classes, but {split} has "
            f"{len(names)}: {few(names)}.\n"
            "Bring back the data that it was trained on, or name them with --dataset."
        )
    log(f"the model keeps no class names, and takes those of {split}: {few(names)}")
    return names


def values(model: keras.Model) -> list[tf.Variable]:
    """The model's parameters and moving statistics, in its own order."""
    return [variable.value for variable in model.weights]


def versions() -> dict[str, str]:
    """Of Python, and of the packages that make a model what it is."""
    return {
        "python": platform.python_version(),
        "crescendo": __version__,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
    }
