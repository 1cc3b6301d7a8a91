"""An export: the inference model of a run, twice, in a folder that is whole or not there at all.

`saved_model/` needs TensorFlow alone: `serve`, from uint8 images [b, h, w, c] to float32 logits
[b, classes], for any b. `model.keras` needs Keras, and the module of layers that are the user's
own; where Keras cannot load what it saved, it is left out. `classes.txt` names the logits, a line
each, and so does the SavedModel's `class_names`. `flags.txt` are the run's, and `export.json` says
which checkpoint it is of.
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
from trainer.run_dir import temporary_folder
from trainer.run_dir.checkpoints import DAMAGED, first_line
from trainer.run_dir.directory import kept_flags
from trainer.run_dir.literal_path import named, plain
from trainer.run_dir.model_source import is_export, is_model
from trainer.system import typed_json
from trainer.system.atomic_file import move_atomic, write_atomic, write_json
from trainer.system.regular_file import opener
from trainer.system.typed_json import (
    DamagedError,
    WrongError,
    fields,
    file_name,
    integer,
    list_of,
    optional,
    table_of,
    text,
)

# Besides, what TensorFlow and Keras raise for models that are cut, flipped or others.
_DAMAGED = (AttributeError, KeyError, TypeError, ValueError)


@dataclasses.dataclass(frozen=True)
class ExportInfo:
    """What export.json says: the checkpoint and its update, the images' (h, w, c), the number of
    logits, the versions of what wrote it, and the names of the classes (None in an older one)."""

    checkpoint: str
    update: int
    image_shape: tuple[int, int, int]
    classes: int
    versions: dict[str, str]
    class_names: tuple[str, ...] | None = None


_ABOUT = fields(
    {
        "checkpoint": file_name,
        "update": integer(),
        "image_shape": list_of(integer(1, 2**16), 3),
        "classes": integer(1),
        "versions": table_of(text),
    },
    {"class_names": optional(list_of(file_name))},
)


def check_free(folder: pathlib.Path, flagfile: str) -> None:
    """Refuses a folder that holds something else than an export of the run of `flagfile`."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not is_export(folder):
        raise UserError(f"--export_dir={folder} holds something that is no export: name another.")
    try:
        kept = kept_flags(folder) or ""
    except OSError as error:
        raise UserError(
            f"{folder}/flags.txt cannot be read: {error.strerror}.\n"
            f"Delete --export_dir={folder}, or name another folder."
        ) from error
    differences = learned_differences(kept, flagfile)
    if differences:
        raise UserError(
            f"--export_dir={folder} holds an export of another run: {'; '.join(differences)}.\n"
            "Name another folder, or delete this one."
        )


def write(
    folder: pathlib.Path,
    model: keras.Model,
    flagfile: str,
    about: ExportInfo,
    logits: Sequence[str],
) -> str | None:
    """Writes an export of `model`, in place of what is there; `logits` names each logit.

    Returns:
      Why it has no model.keras, or None.

    Raises:
      UserError: where it cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder.beside(folder) as work:
            new = work / "new"
            new.mkdir()
            _write_saved_model(model, about, logits, new / "saved_model")
            reason = _write_keras_file(model, new / "model.keras")
            write_atomic(new / "classes.txt", "".join(f"{name}\n" for name in logits))
            write_atomic(new / "flags.txt", flagfile)
            write_json(new / "export.json", dataclasses.asdict(about))
            move_atomic(new, folder, aside=work / "old")
    except (OSError, tf.errors.OpError) as error:
        raise UserError(
            f"--export_dir={folder} cannot be written: {first_line(error)}.\n"
            "Make room, or name a folder that can be written."
        ) from error
    return reason


def _write_saved_model(
    model: keras.Model, about: ExportInfo, logits: Sequence[str], path: pathlib.Path
) -> None:
    """Not by Keras' own export, which writes each variable twice: 421 MB for InceptionResNetV2's
    211."""
    images = tf.TensorSpec([None, *about.image_shape], tf.uint8, name="images")
    module = tf.Module()
    module.weights = [variable.value for variable in model.weights]
    module.class_names = tf.Variable(list(logits), trainable=False)  # string [classes]
    module.serve = tf.function(
        lambda images: model(images, training=False), input_signature=[images], autograph=False
    )
    tf.saved_model.save(module, str(path), signatures=module.serve)


def _write_keras_file(model: keras.Model, path: pathlib.Path) -> str | None:
    try:
        model.save(path)
        keras.models.load_model(path)
    except (NotImplementedError, TypeError, ValueError) as error:
        path.unlink(missing_ok=True)
        return textwrap.shorten(str(error), 200, placeholder=" ...")
    return None


def modules_needed(model: keras.Model) -> list[str]:
    """The modules of layers that are not Keras' own, which who loads model.keras imports first."""
    modules = {type(layer).__module__ for layer in model._flatten_layers()}
    return sorted(module for module in modules if module.partition(".")[0] != "keras")


def about(folder: pathlib.Path) -> ExportInfo:
    """What the export.json of an export says.

    Raises:
      UserError: where it is damaged.
    """
    file = folder / "export.json"
    try:
        found: ExportInfo = typed_json.read(file, _about)
    except (DamagedError, OSError) as error:
        raise UserError(f"{file} {typed_json.problem(error)}.\nExport the run again.") from error
    return found


def _about(value: Any) -> ExportInfo:
    """The kind of export.json."""
    said = _ABOUT(value)
    names = said.get("class_names")
    if names is not None and not len({*names}) == len(names) <= said["classes"]:
        raise WrongError("is not a list of distinct names of logits", "class_names")
    h, w, c = said["image_shape"]
    return ExportInfo(
        checkpoint=said["checkpoint"],
        update=said["update"],
        image_shape=(h, w, c),
        classes=said["classes"],
        versions=said["versions"],
        class_names=None if names is None else tuple(names),
    )


def load(path: pathlib.Path) -> Callable[..., tf.Tensor]:
    """An export's model, on the current strategy: (images, training=False) → logits.

    Args:
      path: of the export, whose SavedModel it then is, or of its model.keras.

    Raises:
      UserError: where it is damaged, or Keras cannot load it.
    """
    try:
        if is_model(path):
            os.close(opener(path, os.O_RDONLY))  # Keras would wait for a FIFO.
            return keras.models.load_model(path)
        # Holds the variables, too.
        with plain(path / "saved_model") as readable:
            loaded = tf.saved_model.load(readable)
        said = about(path)
        images = tf.TensorSpec([None, *said.image_shape], tf.uint8)
        logits = loaded.serve.get_concrete_function(images).output_shapes
        if not logits.is_compatible_with([None, said.classes]):
            raise ValueError(f"it has logits of shape {logits}, and not {said.classes} of them")
    except (*DAMAGED, *_DAMAGED, zipfile.BadZipFile) as error:
        reason = named(str(error), path / "saved_model")
        reason = textwrap.shorten(reason, 200, placeholder=" ...")
        instead = f", or take --export_dir={path.parent}" if is_model(path) else ""
        raise UserError(
            f"{path} cannot be loaded: {reason}\nExport the run again{instead}."
        ) from error
    return lambda images, training: loaded.serve(images)
