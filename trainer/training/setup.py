"""Sets up devices, data and model of a run, for training, evaluation and export."""

import dataclasses
import pathlib
import platform
from collections.abc import Sequence

import keras
import tensorflow as tf

from trainer import __version__
from trainer.config import image_sizes
from trainer.config.flags import Config
from trainer.config.model_flags import AUTO
from trainer.data import image_listing, sources, split_overlap
from trainer.data.bad_examples import BadExamples
from trainer.data.class_names import few
from trainer.data.in_memory import InMemoryDataset
from trainer.data.indexed import IndexedDataset
from trainer.distributed import strategy as cluster
from trainer.distributed import tpu_address
from trainer.distributed.process_group import ProcessGroup
from trainer.distributed.worker import Worker
from trainer.errors import UserError
from trainer.nn import model_configuration, normalization
from trainer.nn.ghost_batch_norm import Kernel
from trainer.nn.models import registry
from trainer.run_dir import checkpoint_reader, training_data
from trainer.run_dir.checkpoint_progress import checked
from trainer.run_dir.training_data import TrainingData
from trainer.schedule.averaging import EMA, evaluated_with
from trainer.system import python_objects
from trainer.system.output import log
from trainer.training import same_data


def devices(config: Config, worker: Worker | None = None) -> tuple[tf.distribute.Strategy, int]:
    """Returns the strategy, and the number of parts of a batch that a replica computes in parallel.

    Call this function once, before TensorFlow computes. It waits until all workers are connected.

    Raises:
      UserError: if this machine lacks the devices.
    """
    return cluster.connect(
        config.strategy,
        virtual_devices=config.virtual_devices,
        deterministic=config.deterministic,
        ghost_batch_size=config.ghost_batch_size,
        worker=worker,
        worker_timeout=config.worker_timeout,
        on_tpu=tpu_address.address(config),
    )


def load(
    config: Config,
    split: str,
    bad: BadExamples,
    class_names: Sequence[str] | None = None,
    *,
    training: bool = False,
) -> InMemoryDataset | IndexedDataset:
    """Returns a split of the run's dataset, for training if `training`, otherwise for evaluation.

    Labels are indices in `class_names`, or in the split's classes if `class_names` is None.

    Raises:
      UserError: if the split does not exist or cannot be read.
    """
    return sources.load(
        config.dataset,
        split,
        config.data_dir,
        config.loaded_image_size if training else config.model_image_size,
        augment=config.augment,
        class_names=class_names,
        max_pixels=config.max_image_pixels,
        bad=bad,
        several_sizes=training and bool(config.image_sizes),
    )


def check_finished(config: Config, path: pathlib.Path) -> None:
    """Checks that the examples of a finished run are those that a Python program gives now.

    Raises:
      UserError: if they differ.
    """
    if (kept := training_data.read(path)) and python_objects.given().examples:
        bad = BadExamples(config.skip_bad_examples)
        same_data.check_as_began(config, kept, load(config, config.train_split, bad, training=True))


def _check_shapes(
    config: Config,
    training: InMemoryDataset | IndexedDataset,
    evaluation: InMemoryDataset | IndexedDataset,
) -> None:
    """Refuses evaluation images that the model cannot take."""
    ours, theirs = training.image_shape, evaluation.image_shape
    resized = config.image_size or config.image_sizes or config.eval_image_size
    if ours[2] != theirs[2] or (not resized and ours != theirs):
        remedy = "convert one of the two to grey or to RGB"
        if ours[2] == theirs[2]:
            remedy = "give both the same shape, or --image_size"
        raise UserError(
            f"the images of {evaluation.name} have the shape {theirs}, and those of "
            f"{training.name} {ours}: {remedy}."
        )


def load_splits(
    config: Config, path: pathlib.Path | None, bad: BadExamples, group: ProcessGroup
) -> tuple[InMemoryDataset | IndexedDataset, InMemoryDataset | IndexedDataset]:
    """Returns the training and the evaluation examples; every process reads both.

    Raises:
      UserError: if the model does not exist. Also if a split cannot be read, if it differs between
        processes, or if the run in `path` began with other training data.
    """
    registry.check_name(config.model)  # Before the data are read, because that may take minutes.
    log(f"reading {config.dataset} {config.train_split}")
    if note := image_listing.note(config.dataset, config.train_split):
        log(note)
    training = load(config, config.train_split, bad, training=True)
    log(training.summary)
    if max(training.classes, config.num_classes or 0) == 1 and config.loss == "softmax":
        log("warning: with one class and --loss=softmax, the loss is 0, and nothing is learned")
    # Checks now, because loading the evaluation split would report a renamed class less clearly.
    if path and (kept := training_data.read(path)):
        same_data.check_as_began(config, kept, training)
    evaluation_split = sources.evaluation_split(config)
    log(f"reading {config.dataset} {evaluation_split}")
    evaluation = load(config, evaluation_split, bad, training.class_names)
    log(evaluation.summary)
    _check_shapes(config, training, evaluation)
    both = (config.train_split, training), (evaluation_split, evaluation)
    for warning in split_overlap.warnings(config.dataset, config.data_dir, *both):
        log(warning)
    if config.train_examples not in (None, training.examples):
        raise UserError(
            f"--train_examples={config.train_examples}, but {config.dataset}'s "
            f"{config.train_split!r} has {training.examples}: leave --train_examples out."
        )
    same_data.check_in_all_processes(training, group)
    same_data.check_in_all_processes(evaluation, group)
    return training, evaluation


def training_data_of(
    config: Config,
    path: pathlib.Path | None,
    bad: BadExamples,
    source: InMemoryDataset | IndexedDataset | None = None,
) -> TrainingData:
    """Returns the properties of the training data, from the run in `path` or from the data.

    Args:
      config: flags of the run.
      path: run directory. If it is None or keeps no properties, they are computed from the data.
      bad: records examples that cannot be decoded.
      source: the training split, which must agree with the kept properties. If this is None, the
        split is loaded only if the run keeps no properties.

    Raises:
      UserError: if the run began with other data, or the data are needed and cannot be read.
    """
    kept = checkpoint_reader.training_data(path) if path else None
    if kept is not None and source is None:
        return kept
    source = source or load(config, config.train_split, bad, training=True)
    names = source.class_names
    if kept is None:
        statistics = sources.image_statistics(source, config.augment, bad)
        shape, digest = source.image_shape, source.digest
        return TrainingData(
            source.examples, shape, source.classes, *statistics, names, digest=digest
        )
    same_data.check_as_began(config, kept, source)
    if kept.class_names is None:
        log(f"this run kept no class names, and takes those of its data: {few(names)}")
    return dataclasses.replace(kept, class_names=names)


def build(
    config: Config,
    data: TrainingData,
    strategy: tf.distribute.Strategy,
    *,
    to_train: bool = False,
) -> keras.Model:
    """Returns the model for the training data `data`, with initial weights.

    The model accepts images of the evaluation size and, if `to_train`, of all training sizes.

    Raises:
      UserError: if no such model can be built for these sizes, or --num_classes is too small.
    """
    classes = config.num_classes or data.classes
    if classes < data.classes:
        raise UserError(
            f"--num_classes={classes} is below the {data.classes} classes of {config.dataset}: "
            "leave the flag out, or raise its value."
        )
    (h, w, c), side = data.image_shape, config.model_image_size
    shape = (side or h, side or w, c)
    xla = cluster.compiles_by_xla(strategy, config.xla, deterministic=config.deterministic)
    kernel: Kernel = "fused" if cluster.on_cpu(strategy) and not xla else "reshaped"
    assert config.precision != AUTO  # `precision.resolved` has replaced AUTO.
    sizes = [(size, size) for size in image_sizes.sizes(config.image_sizes)]
    sizes = (sizes or [(config.image_size or h, config.image_size or w)]) if to_train else []
    with strategy.scope():
        return registry.build(
            config.model,
            registry.ImageFormat(shape, data.mean, data.std, data.preprocessing, sizes),
            classes,
            registry.GhostNorm(config.ghost_batch_size, config.ghost_decay, kernel),
            seed=config.seed,
            precision=config.precision,
            drop_path=config.drop_path,
        )


def restore(
    config: Config, folder: pathlib.Path, strategy: tf.distribute.Strategy, bad: BadExamples
) -> tuple[keras.Model, TrainingData, pathlib.Path, int]:
    """Loads the model of the run in `folder` from the checkpoint that --checkpoint names.

    The model has the parameters that --evaluate_with names: the plain ones, or their average.

    Returns:
      The model, the properties of the training data, and the checkpoint's path and update number.

    Raises:
      UserError: if the checkpoint does not exist, or its training data differ from the run's.
    """
    group = "averages" if evaluated_with(config) == EMA else "weights"
    data = training_data_of(config, folder, bad)
    model = build(config, data, strategy)
    variables = {group: values(model)}
    path, progress = checkpoint_reader.load(folder / "checkpoints", config.checkpoint, variables)
    if progress.get("normalization_refreshed"):
        normalization.refresh(model)
    learned = checked(progress, f"checkpoint {path}").get("training_data", {})
    training_data.check_learned(learned, data, folder / training_data.FILE)
    own = model_configuration.of_user(config.model, model)
    model_configuration.compare(config.model, own, progress.get("model_configuration"))
    return model, data, path, progress["update"]


def class_names(config: Config, kept: Sequence[str] | None, classes: int | None) -> Sequence[str]:
    """Returns the class names of a trained model: `kept`, or else those of the training split.

    Args:
      config: flags of the command; --dataset may differ from its value in training.
      kept: names that were saved with the model; None if an old version saved it.
      classes: number of classes that the model was trained on; None if unknown.

    Raises:
      UserError: if `kept` is None, and the split cannot be read or does not have `classes` classes.
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
    """Returns the model's parameters and moving statistics, in the model's order."""
    return [variable.value for variable in model.weights]


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that define a model."""
    return {
        "python": platform.python_version(),
        "crescendo": __version__,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
    }
