"""Reads the pretrained weights that --init_from names, and copies them into a run's model.

A model does not recognise images that are standardised with another mean and deviation than in its
training. So the run also uses the preprocessing that the weights were trained with.
"""

import dataclasses
import pathlib
import warnings
from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf

from trainer.config import command_line
from trainer.config.flags import Config
from trainer.data.bad_examples import BadExamples
from trainer.errors import UserError
from trainer.nn.ghostify import unghostify
from trainer.nn.layer_paths import weight_paths
from trainer.nn.models import application, python_name, user_function
from trainer.nn.transfer import Transfer, transfer
from trainer.run_dir import exports, model_source
from trainer.run_dir.checkpoints import first_line
from trainer.run_dir.training_data import TrainingData
from trainer.schedule.averaging import EMA, evaluated_with
from trainer.system.output import log
from trainer.system.regular_file import opener
from trainer.training import setup

FILE = "init_from.txt"  # In the run directory: a table of loaded, new and unused weights.
Tensors = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Source:
    """Pretrained weights.

    Attributes:
      name: name of the weights for messages.
      tensors: function that returns the values of the weights by path. Its argument is a function
        that builds the run's model, because a .weights.h5 file can only be loaded into a model.
      statistics: mean and deviation of each channel, for pixels 0 to 255; None if not known.
      preprocessing: "imagenet" if keras.applications' preprocessing is used, else None.
      class_names: names of the logits; None if they are not known.
    """

    name: str
    tensors: Callable[[Callable[[], keras.Model]], Tensors]
    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    preprocessing: str | None = None
    class_names: Sequence[str] | None = None


def find(config: Config) -> Source:
    """Returns the weights that --init_from names.

    Raises:
      UserError: if the weights do not exist, cannot be read, or do not fit the model or images.
    """
    assert config.init_from is not None
    if config.init_from == application.IMAGENET:
        application.check(config.model, channels=3)  # `preprocessed` checks the data's channels.
        tensors = application.weights(config.model)
        return Source(application.IMAGENET, lambda _: tensors, preprocessing="imagenet")
    path = pathlib.Path(config.init_from)
    # A Keras file may have layers that the module of the user's model defines.
    if ":" in config.model and config.model != python_name.NAME:
        user_function.load(config.model)
    if path.suffix == ".keras" and not path.is_dir():
        return _of_keras_file(path)
    if path.name.endswith(".weights.h5"):
        _check_readable(path)
        return Source(str(path), lambda build: _weights_file(path, build))
    if model_source.is_export(path):
        return _of_export(path)
    return _of_run(path)


def preprocessed(data: TrainingData, source: Source, model: str) -> TrainingData:
    """Returns `data` with the preprocessing of `source`, or logs why `data` is not changed.

    Raises:
      UserError: if `source` uses keras.applications' preprocessing, and `model` or the images do
        not permit it.
    """
    if source.preprocessing:
        application.check(model, len(data.mean))
        return dataclasses.replace(data, preprocessing=source.preprocessing)
    if source.statistics is None:
        log(
            f"the mean and deviation with which {source.name} was trained are not known: those of "
            "the training data are used"
        )
        return data
    mean, std = source.statistics
    if len(mean) != len(data.mean):
        log(
            f"{source.name} was trained on images of {len(mean)} channels, and these have "
            f"{len(data.mean)}: the mean and deviation of the training data are used"
        )
        return data
    return dataclasses.replace(data, mean=mean, std=std)


def load(config: Config, data: TrainingData, source: Source, model: keras.Model) -> Transfer:
    """Copies the weights of `source` into `model`; returns the loaded, new and unused weights.

    Raises:
      UserError: if no weight outside the last layer fits, or the classes differ and the last layer
        cannot be found.
    """
    # If the classes differ, or are in another order, the source's logits have other meanings.
    same = source.class_names is None or source.class_names == data.class_names
    found = transfer(model, source.tensors(lambda: fresh(config, data)), with_head=same)
    if not found.backbone:
        first = next(iter(found.new.items()), ("", ""))
        raise UserError(
            f"--init_from={config.init_from}: none of its weights fits --model={config.model} by "
            f"path and shape; for example, {first[0]} is {first[1]}.\n"
            "Name the --model that the weights were trained with."
        )
    log(f"--init_from={source.name}: {found.summary()}; all are in {FILE}")
    if found.mostly_new:
        log(
            f"warning: most tensors are new, because the weights of {source.name} have other paths "
            f"or shapes: --model={config.model} may not be the model that they were trained with"
        )
    return found


def fresh(config: Config, data: TrainingData) -> keras.Model:
    """Returns the run's model with initial weights and Keras' own batch norms, on the CPU."""
    return unghostify(setup.build(config, data, tf.distribute.OneDeviceStrategy("CPU:0")))


def _of_run(path: pathlib.Path) -> Source:
    folder, checkpoint = path, "newest"
    if not path.exists() and path.name.partition("@")[0]:
        name, _, which = path.name.rpartition("@")
        folder, checkpoint = (path.with_name(name), which) if name else (path, "newest")
    if not folder.exists():
        raise UserError(
            f"--init_from={path} does not exist.\n"
            "Name a run directory, an export, a .keras or .weights.h5 file, or imagenet."
        )
    given = [f"--model_dir={folder}", f"--checkpoint={checkpoint}"]
    config = command_line.parse("evaluate", given)
    config = model_source.with_kept_flags("evaluate", config, given)
    strategy = tf.distribute.OneDeviceStrategy("CPU:0")
    try:
        model, data, _, update = setup.restore(
            config, folder, strategy, BadExamples(config.skip_bad_examples)
        )
    except UserError as error:  # The user has not given --checkpoint.
        message = str(error).replace(given[1], f"--init_from={path}")
        message = message.replace(", an update, or the path of a checkpoint", " or an update")
        raise UserError(message) from error
    tensors = _values(model)
    averaged = "the average at " if evaluated_with(config) == EMA else ""
    return Source(
        f"{folder}, {averaged}update {update}",
        lambda _: tensors,
        (data.mean, data.std),
        data.preprocessing,
        data.class_names,
    )


def _of_export(folder: pathlib.Path) -> Source:
    about = exports.about(folder)
    source = _of_keras_file(folder / "model.keras")
    return dataclasses.replace(
        source, preprocessing=about.preprocessing, class_names=about.class_names
    )


def _of_keras_file(path: pathlib.Path) -> Source:
    _check_readable(path)
    try:
        model = exports.load(path)
    except UserError as error:
        raise UserError(
            f"--init_from={str(error).splitlines()[0]}\n"
            "Save the model again; if it has layers of your own, --model must name their module."
        ) from error
    if not isinstance(model, keras.Model):
        raise UserError(
            f"--init_from={path} holds a {type(model).__name__}.\nName a file with a keras.Model."
        )
    tensors = _values(model)
    return Source(str(path), lambda _: tensors, _statistics(model))


def _statistics(model: keras.Model) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Returns mean and deviation of the model's Normalization for pixels 0 to 255, or None."""
    kinds = (keras.layers.Normalization, keras.layers.Rescaling)
    layers = [each for each in model.layers if isinstance(each, kinds)]
    if len(layers) != 1 or isinstance(layers[0], keras.layers.Rescaling):
        return None
    mean, std = np.ravel(layers[0].mean), np.sqrt(np.ravel(layers[0].variance))
    if not (np.all((mean >= 0) & (mean <= 255)) and np.all((std >= 1) & (std <= 255))):
        return None
    return tuple(mean.tolist()), tuple(std.tolist())


def _check_readable(path: pathlib.Path) -> None:
    try:
        with open(path, "rb", opener=opener):
            pass
    except OSError as error:
        raise UserError(
            f"--init_from={path} cannot be read: {error.strerror}.\n"
            "Name a run directory, an export, a .keras or .weights.h5 file, or imagenet."
        ) from error


def _values(model: keras.Model) -> Tensors:
    return {path: np.asarray(variable.value) for path, variable in weight_paths(model).items()}


def _weights_file(path: pathlib.Path, build: Callable[[], keras.Model]) -> Tensors:
    """Returns the weights of a .weights.h5 file, which names layers by their place in a model.

    The file may hold the weights of the whole model, or only of a network inside the model, without
    the standardisation layer. So this function loads the file into the model and into each such
    network, and returns the result with the most weights.
    """
    model = build()
    networks = [layer for layer in model.layers if isinstance(layer, keras.Model)]
    most: Tensors = {}
    for part in (model, *networks):
        for variable in part.weights:  # A weight that the file lacks stays NaN.
            variable.assign(np.full(variable.shape, np.nan, np.float32))
        try:
            with warnings.catch_warnings(action="ignore"):  # FILE lists what was loaded.
                part.load_weights(path, skip_mismatch=True)
        except (OSError, KeyError, ValueError) as error:
            raise UserError(
                f"--init_from={path} cannot be read: {first_line(error)}.\n"
                "Name a file that Keras' save_weights wrote."
            ) from error
        found = {name: value for name, value in _values(model).items() if not _is_nan(value)}
        most = max(most, found, key=len)
    return most


def _is_nan(value: np.ndarray) -> bool:
    return bool(np.all(np.isnan(value)))
