"""Exports: the inference model of a run in two formats, in a folder that appears atomically.

- `saved_model/` can be loaded with TensorFlow alone. Its function `serve` maps uint8 images
  [b, h, w, c] to float32 logits [b, classes], for any b. Its function `serve_images` maps the bytes
  [n] of JPEG and PNG files to the names and the probabilities of the classes, both [n, classes].
  The most probable class is the first. The probabilities are the softmax or the sigmoid of the
  logits, depending on --loss. The variable `class_names` holds the names of the logits.
- `model.keras` can be loaded with Keras and the modules of custom layers. The export lacks this
  file if Keras cannot load it.
- `classes.txt` names one logit per line, `flags.txt` has the flags of the run, and `export.json`
  names the exported checkpoint.
"""

import dataclasses
import os
import pathlib
import textwrap
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from trainer.config.flagfile import learned_differences
from trainer.errors import UserError
from trainer.nn.losses import Loss
from trainer.run_dir import temporary_folder
from trainer.run_dir.checkpoint_progress import BEST
from trainer.run_dir.checkpoints import DAMAGED, first_line
from trainer.run_dir.directory import kept_flags
from trainer.run_dir.literal_path import named, plain
from trainer.run_dir.model_source import is_export, is_model
from trainer.system import typed_json
from trainer.system.atomic_file import move_atomic, write_atomic, write_json
from trainer.system.regular_file import opener
from trainer.system.typed_json import DamagedError, file_name, integer, list_of

# Maps the bytes of image files, string [n], to images, uint8 [n, h, w, c].
Decode = Callable[[tf.Tensor], tf.Tensor]
# TensorFlow and Keras raise these errors if a model is damaged, or if another program wrote it.
_DAMAGED = (*DAMAGED, AttributeError, KeyError, TypeError, ValueError, zipfile.BadZipFile)


@dataclasses.dataclass(frozen=True)
class ExportInfo:
    """Content of export.json."""

    checkpoint: str  # Path of the exported checkpoint.
    update: int
    image_shape: tuple[int, int, int]  # (h, w, c) in pixels.
    classes: int  # Number of logits.
    versions: dict[str, str]  # Version of each package that took part in the export, by name.
    class_names: tuple[str, ...] | None = None  # None if an older version wrote the export.
    # "imagenet" if the model standardises images as keras.applications does, else None.
    preprocessing: str | None = None
    # top1 and update of the run's best evaluation before the export; None if it is unknown.
    best: dict[str, Any] | None = None
    # "ema" if the model has the average of the parameters, "plain" if it has the parameters
    # themselves. None if the run has no average.
    evaluated_with: str | None = None
    # Value of --loss. The probabilities are the softmax or the sigmoid of the logits.
    loss: str = "softmax"


_ABOUT = typed_json.fields(
    {
        "checkpoint": file_name,
        "update": integer(),
        "image_shape": list_of(integer(1, 2**16), 3),
        "classes": integer(1),
        "versions": typed_json.table_of(typed_json.text),
    },
    {
        "class_names": typed_json.optional(list_of(file_name)),
        "preprocessing": typed_json.optional(typed_json.one_of("imagenet")),
        "best": typed_json.optional(BEST),
        "evaluated_with": typed_json.optional(typed_json.one_of("plain", "ema")),
        "loss": typed_json.one_of("softmax", "sigmoid"),
    },
)


def check_free(folder: pathlib.Path, flagfile: str) -> None:
    """Checks that `folder` is missing or empty, or is an export of the run with this `flagfile`.

    Raises:
      UserError: if `folder` is something else, or its flags.txt cannot be read.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not is_export(folder):
        raise UserError(f"--export_dir={folder} exists and is not an export: name another folder.")
    try:
        kept = kept_flags(folder) or ""
    except OSError as error:
        raise UserError(
            f"{folder}/flags.txt cannot be read: {error.strerror}.\n"
            f"Delete --export_dir={folder}, or name another folder."
        ) from error
    if differences := learned_differences(kept, flagfile):
        raise UserError(
            f"--export_dir={folder} holds an export of another run: {'; '.join(differences)}.\n"
            "Name another folder, or delete this one."
        )


def write(
    folder: pathlib.Path,
    model: keras.Model,
    flagfile: str,
    about: ExportInfo,
    names: Sequence[str],
    decode: Decode,
) -> str | None:
    """Writes an export of `model` to `folder`, and replaces an earlier export there.

    Args:
      folder: folder of the export.
      model: the model for inference.
      flagfile: flags of the run.
      about: content of export.json.
      names: names of the logits.
      decode: function by which `serve_images` decodes image files; uses only TensorFlow operations.

    Returns:
      The reason why the export lacks model.keras, or None if it has this file.

    Raises:
      UserError: if the export cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder.beside(folder) as work:
            new = work / "new"
            new.mkdir()
            _write_saved_model(model, about, names, decode, new / "saved_model")
            reason = _write_keras_file(model, new / "model.keras")
            write_atomic(new / "classes.txt", "".join(f"{name}\n" for name in names))
            write_atomic(new / "flags.txt", flagfile)
            write_json(new / "export.json", dataclasses.asdict(about))
            move_atomic(new, folder, aside=work / "old")
    except (OSError, tf.errors.OpError) as error:
        raise UserError(
            f"--export_dir={folder} cannot be written: {first_line(error)}.\n"
            "Free disk space, or name a folder that you can write."
        ) from error
    return reason


def _write_saved_model(
    model: keras.Model,
    about: ExportInfo,
    names: Sequence[str],
    decode: Decode,
    path: pathlib.Path,
) -> None:
    """Writes the SavedModel.

    This function does not call Keras' own export, which writes each variable twice. For
    InceptionResNetV2, Keras' export has 421 MB, and the export by this function has 211 MB.
    """
    images = tf.TensorSpec([None, *about.image_shape], tf.uint8, name="images")
    module = tf.Module()
    module.weights = [variable.value for variable in model.weights]
    module.class_names = tf.Variable(list(names), trainable=False)  # string [classes]
    module.serve = tf.function(
        lambda images: model(images, training=False), input_signature=[images], autograph=False
    )

    def serve_images(encoded: tf.Tensor) -> dict[str, tf.Tensor]:
        logits = model(decode(encoded), training=False)
        probabilities, classes = Loss(about.loss).most_probable(logits, about.classes)
        return {"names": tf.gather(module.class_names, classes), "probabilities": probabilities}

    encoded = tf.TensorSpec([None], tf.string, name="encoded")
    module.serve_images = tf.function(serve_images, input_signature=[encoded], autograph=False)
    signatures = {"serving_default": module.serve, "serve_images": module.serve_images}
    tf.saved_model.save(module, str(path), signatures=signatures)


def _write_keras_file(model: keras.Model, path: pathlib.Path) -> str | None:
    try:
        model.save(path)
        keras.models.load_model(path)
    except (OSError, tf.errors.OpError):
        raise
    except Exception as error:  # The user's own layers may raise any error.
        path.unlink(missing_ok=True)
        return _shortened(str(error) or type(error).__name__)
    return None


def _shortened(reason: str) -> str:
    return textwrap.shorten(reason, 200, placeholder=" ...")


def modules_needed(model: keras.Model) -> list[str]:
    """Returns the modules of custom layers; a program must import them to load model.keras."""
    modules = {type(layer).__module__ for layer in model._flatten_layers()}
    return sorted(module for module in modules if module.partition(".")[0] != "keras")


def about(folder: pathlib.Path) -> ExportInfo:
    """Returns the content of the export.json in `folder`.

    Raises:
      UserError: if the file is damaged or cannot be read.
    """
    file = folder / "export.json"
    try:
        return typed_json.read(file, _about)
    except (DamagedError, OSError) as error:
        raise UserError(f"{file} {typed_json.problem(error)}.\nExport the run again.") from error


def _about(value: Any) -> ExportInfo:
    """Checks the content of export.json: distinct class names, and at most one name per logit."""
    checked = _ABOUT(value)
    names = checked.get("class_names")
    if names is not None and not len({*names}) == len(names) <= checked["classes"]:
        raise typed_json.WrongError("is not a list of distinct names of logits", "class_names")
    known = {field.name: checked.get(field.name) for field in dataclasses.fields(ExportInfo)}
    known["loss"] = checked.get("loss", "softmax")  # Older exports have no loss.
    known["image_shape"] = tuple(checked["image_shape"])
    known["class_names"] = None if names is None else tuple(names)
    return ExportInfo(**known)


def load(path: pathlib.Path) -> Callable[..., tf.Tensor]:
    """Loads the model of an export into the current strategy.

    Args:
      path: folder of an export, to load its SavedModel, or the path of its model.keras.

    Returns:
      A function that maps images to logits; call it as f(images, training=False).

    Raises:
      UserError: if the export is damaged, or Keras cannot load the model.
    """
    try:
        if is_model(path):
            os.close(opener(path, os.O_RDONLY))  # Refuses a FIFO, where Keras would hang.
            return keras.models.load_model(path)
        # `loaded` owns the variables, so the returned function must keep a reference to it.
        with plain(path / "saved_model") as readable:
            loaded = tf.saved_model.load(readable)
        info = about(path)
        images = tf.TensorSpec([None, *info.image_shape], tf.uint8)
        logits = loaded.serve.get_concrete_function(images).output_shapes
        if not logits.is_compatible_with([None, info.classes]):
            raise ValueError(f"its logits have shape {logits}, and not {info.classes} columns")
    except _DAMAGED as error:
        reason = _shortened(named(str(error), path / "saved_model"))
        instead = f", or use --export_dir={path.parent}" if is_model(path) else ""
        raise UserError(
            f"{path} cannot be loaded: {reason}\nExport the run again{instead}."
        ) from error
    return lambda images, training: loaded.serve(images)
