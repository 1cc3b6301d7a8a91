"""trainer.train: trains or resumes a run, and returns its result."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any

from trainer.api import arguments, calls, devices, examples, keras_backend, model_argument
from trainer.api.log_listener import LogListener
from trainer.commands import train as command
from trainer.errors import NonFiniteLossError
from trainer.system import python_objects, stop_signals
from trainer.system.python_objects import PythonObjects
from trainer.training.stop_reason import StopReason


@dataclasses.dataclass(frozen=True)
class Stopped:
    """A run that stopped before its end, with a checkpoint; the same call resumes it.

    Attributes:
      model_dir: the run directory.
      reason: "signal" after Ctrl-C or SIGTERM, "epoch" at `stop_at_epoch`, or "workers" if the run
        should go on with another number of `workers`.
    """

    model_dir: str
    reason: str


def train(
    model_dir: str | os.PathLike[str],
    recipe: str | os.PathLike[str] | None = None,
    *,
    model: Any = None,
    data: Any = None,
    evaluation_data: Any = None,
    class_names: Sequence[str] | None = None,
    on_log: Callable[[dict[str, Any]], None] | None = None,
    **flags: object,
) -> dict[str, Any] | Stopped | None:
    """Trains a run, or resumes the run in `model_dir`, as the command `train` does.

    Example:
      >>> result = trainer.train("runs/grow", "fashion_mnist_grow", epochs=2)
      >>> result["top1"]

    Args:
      model_dir: the run directory, local or in a bucket.
      recipe: name of a recipe, or path of a flagfile; None: the defaults of the flags.
      model: a name as in --model; a function of (image_shape, classes) that returns a Keras model;
        or a Keras model. A Keras model is copied with its weights, from which the run begins, and
        does not change. None: the flags' default.
      data: training examples: a pair of arrays (images uint8 [N, h, w] or [N, h, w, c], integer
        labels [N]), or a source with __len__ and __getitem__ that returns (image, label) or
        {"image": ..., "label": ...}. Threads call a source, several at a time. None: the examples
        of the flag `dataset`.
      evaluation_data: examples of the evaluations, as in `data`.
      class_names: names of the classes of both, in the order of the labels. None: `data.classes`;
        or "0", "1" and so on, up to the largest label of an array or to `num_classes`.
      on_log: called with each logged point, a dict as in metrics.jsonl, on the thread that trains.
        A resumed run passes only new points. If the function raises an error, the run stops with a
        checkpoint, and `train` raises the error.
      **flags: flags of `train` without their dashes, such as epochs=2. They override the recipe's.

    Returns:
      The content of result.json: `top1` (a fraction), `loss`, `updates` and more. A `Stopped` if
      the run stopped early. None in workers other than the first, with strategy="multi_worker".

    Raises:
      UserError: before any training, if the flags, data, model or directory cannot be used.
      NonFiniteLossError: if the loss is not finite.
      NotSavedError: if a file of the run cannot be written.
      LostWorkerError: if another worker, or the TPU, is lost.
      TryAgainError: if a bucket does not answer, or another process owns the run in it.
    """
    keras_backend.prepare()
    flags |= examples.flags_of("trainer.train", flags, data, evaluation_data)
    model_name, builder = model_argument.split(model)
    flags |= {"model_dir": model_dir, "model": model_name}
    names = examples.checked_names(class_names, data)
    words = arguments.words("trainer.train", flags, recipe, _OWN)
    listener = LogListener(on_log)
    with calls.configured("train", words) as config:
        devices.check_to_train("trainer.train", config)
        given = PythonObjects(
            examples=examples.by_split(data, evaluation_data),
            class_names=examples.names_of(config, names, data),
            model=builder,
            on_log=listener,
        )
        stops = command.Stops(stop_signals.shared_with_caller, listener.failed)
        with python_objects.giving(given):
            end = command.train(config, stops)
    listener.raise_error()
    if isinstance(end, NonFiniteLossError):
        raise end
    if isinstance(end, StopReason):
        return Stopped(os.fspath(model_dir), end.name.lower())
    return end


_OWN = ("recipe", "data", "evaluation_data", "class_names", "on_log")
