"""trainer.evaluate, trainer.predict and trainer.load: what a trained model does."""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from trainer.api import arguments, calls, devices, examples, keras_backend, model_argument
from trainer.config.flags import Config
from trainer.data.python.dataset import DATASET, EVALUATION
from trainer.errors import UserError
from trainer.system import python_objects
from trainer.system.python_objects import PythonObjects

_OWN = ("model", "data", "class_names", "images")


def evaluate(
    model_dir: str | os.PathLike[str] | None = None,
    *,
    model: Any = None,
    data: Any = None,
    class_names: Sequence[str] | None = None,
    **flags: object,
) -> dict[str, Any]:
    """Evaluates a checkpoint or an export, as `evaluate --format=json` does.

    Example:
      >>> trainer.evaluate("runs/grow", checkpoint="best")["top1"]

    Args:
      model_dir: the run directory; None with `export_dir`.
      model: the model, if the run was trained with one that only Python has; as in `train`.
      data: examples to evaluate, as in `train`. None: those of the run's flags.
      class_names: names of the classes of `data`, in the order of its labels. None: the classes of
        the run.
      **flags: flags of `evaluate` without their dashes, such as checkpoint="best".

    Returns:
      `top1` and `top5` (fractions), `loss`, `examples` and `checkpoint`. With per_class=True also
      `classes` and more, which then are in evaluation.json too.

    Raises:
      UserError: if a flag is wrong, or the model cannot be read or does not fit the examples.
      OutputError: if the files of per_class=True cannot be written.
      TryAgainError: if a bucket does not answer, or, with per_class=True, another process owns the
        run in it.
    """
    if data is not None:
        examples.refuse("trainer.evaluate", flags)
        flags |= {"dataset": DATASET, "eval_split": EVALUATION}
    objects = {
        "examples": {} if data is None else {EVALUATION: data},
        "class_names": examples.checked_names(class_names, data),
    }
    with _reading("evaluate", model_dir, model, flags, objects) as config:
        from trainer.commands import evaluate as command

        return command.as_json(config)


def predict(
    model_dir: str | os.PathLike[str] | None = None,
    images: Any = (),
    *,
    model: Any = None,
    **flags: object,
) -> list[dict[str, Any]]:
    """Predicts the most probable classes of images, as `predict --format=json` does.

    Example:
      >>> trainer.predict("runs/grow", ["cat.jpg"], top_k=1)[0]["names"]

    Args:
      model_dir: the run directory; None with `export_dir`.
      images: paths of pictures or of folders of pictures; or images: an array uint8 [N, h, w] or
        [N, h, w, c], or a list of such arrays without N, of Pillow images, or of files' bytes.
        Images of another size than the model's are resized.
      model: the model, if the run was trained with one that only Python has; as in `train`.
      **flags: flags of `predict` without their dashes, such as top_k=1.

    Returns:
      A dict an image, in the order of the images: `path`, or `index` in an array or list; `names`
      of the classes, most probable first; and their `probabilities`. An image that cannot be used
      is reported and left out.

    Raises:
      UserError: if a flag is wrong, the model or a picture cannot be read, or no image can be used.
      TryAgainError: if a bucket does not answer.
    """
    images = _listed(images)
    of_files = all(isinstance(each, str | os.PathLike) for each in images)
    if of_files:
        flags["images"] = [os.fsdecode(each) for each in images]
    with _reading("predict", model_dir, model, flags, {}) as config:
        from trainer.commands import predict as command

        return command.as_json(config, None if of_files else images)


def _listed(images: Any) -> Any:
    """Returns the argument of `predict` as a list or array; one path becomes a list."""
    if isinstance(images, str | os.PathLike):
        return [images]
    several = hasattr(images, "__iter__") or hasattr(images, "__getitem__")
    if not several or isinstance(images, bytes) or getattr(images, "ndim", 1) == 0:
        raise UserError(
            f"images has the type {type(images).__name__}, not that of several images: give paths "
            "or a list, as in [image]."
        )
    return images if hasattr(images, "__len__") else list(images)


def load(
    model_dir: str | os.PathLike[str],
    *,
    model: Any = None,
    **flags: object,
) -> Any:
    """Loads the trained model of a checkpoint, for inference, as `export` writes it.

    Example:
      >>> model = trainer.load("runs/grow", checkpoint="best")
      >>> model.class_names[int(model(images)[0].numpy().argmax())]

    Args:
      model_dir: the run directory.
      model: the model, if the run was trained with one that only Python has; as in `train`.
      **flags: flags of `export` without their dashes, such as checkpoint="best".

    Returns:
      A Keras model from images uint8 [b, h, w, c] to logits float32 [b, classes]. It standardises
      the images itself. `class_names` is a tuple with a name for each logit.

    Raises:
      UserError: if a flag is wrong, or the checkpoint cannot be read.
      TryAgainError: if a bucket does not answer.
    """
    with _reading("export", model_dir, model, flags, {}) as config:
        from trainer.training import inference_model

        return inference_model.load(config)


@contextlib.contextmanager
def _reading(
    command: str,
    model_dir: str | os.PathLike[str] | None,
    model: object,
    flags: dict[str, object],
    objects: Mapping[str, Any],
) -> Iterator[Config]:
    """Yields the Config of a command that reads a run, and gives it the objects of the call."""
    keras_backend.prepare()
    function = "load" if command == "export" else command
    if command == "export" and flags.get("export_dir") is not None:
        raise UserError(
            "trainer.load reads a run: load an export with keras.models.load_model or "
            "tf.saved_model.load."
        )
    name, builder = model_argument.split(model)
    flags |= {"model_dir": model_dir, "model": name}
    words = arguments.words(f"trainer.{function}", flags, None, _OWN)
    with (
        calls.configured(command, words, only_reads=function == "load") as config,
        python_objects.giving(PythonObjects(model=builder, **objects)),
    ):
        yield devices.to_read(config, flags)
