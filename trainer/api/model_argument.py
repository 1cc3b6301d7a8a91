"""Turns the argument `model` of a public function into --model, or into a builder beside it."""

import sys
from collections.abc import Callable
from typing import Any

from trainer.errors import UserError
from trainer.nn.models.python_name import NAME
from trainer.nn.user_code import one_line, unwrap_user_errors

Builder = Callable[..., Any]


def split(model: object) -> tuple[str | None, Builder | None]:
    """Returns the value of --model, or None, and the function that builds the model, or None.

    A function that can be imported is named as module:function, so that the command line can build
    the model too. Any other function, and a Keras model, are known to this process only.

    Args:
      model: None, a value of --model, a function of (image_shape, classes) that returns a Keras
        model, or a Keras model.

    Raises:
      UserError: if `model` is anything else, or a Keras model that cannot be copied.
    """
    if model is None or isinstance(model, str):
        return model, None
    keras = sys.modules.get("keras")
    if keras is not None and isinstance(model, keras.Model):
        _check_can_be_copied(model)
        return NAME, lambda image_shape, classes: _copied(model, image_shape)
    if not callable(model):
        raise UserError(
            f"model= has the type {type(model).__name__}: give a name, a function of "
            "(image_shape, classes) that returns a Keras model, or a Keras model."
        )
    return (name, None) if (name := _importable(model)) else (NAME, model)


def _importable(function: Any) -> str | None:
    """Returns module:function if this name leads to `function` in another process, or else None."""
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", "")
    if module in (None, "__main__") or "." in name:
        return None
    found = sys.modules.get(module)
    has_file = getattr(found, "__file__", None) is not None  # A notebook's cell has no file.
    return f"{module}:{name}" if has_file and getattr(found, name, None) is function else None


def _check_can_be_copied(model: Any) -> None:
    import keras

    probe = keras.Input((1,), name="probe")
    functional = type(keras.Model(probe, probe, name="probe"))  # Keras has no public name for it.
    if type(model) not in (keras.Sequential, functional):
        raise UserError(
            f"model= is a {type(model).__name__} of layers that Keras cannot copy.\n"
            "Give a function of (image_shape, classes) that returns such a model."
        )


def _input_shape(model: Any) -> tuple[int | None, ...]:
    """Returns the shape of the images that a Keras model takes, with the batch first.

    Raises:
      UserError: if the model has several inputs, or its input is not a batch of images.
    """
    shapes = [tuple(each.shape) for each in model.inputs]
    if len(shapes) != 1 or len(shapes[0]) != 4:
        shown = " and ".join(str(shape[1:]) for shape in shapes)
        raise UserError(
            f"model= has inputs of the shape {shown}, and not one input of images.\n"
            "Give a model with one keras.Input((height, width, channels))."
        )
    return shapes[0]


def _copied(model: Any, image_shape: tuple[int, int, int]) -> Any:
    """Returns a copy with the same weights, so that training does not change the caller's model."""
    import keras

    sides = zip(_input_shape(model)[1:], image_shape, strict=True) if model.built else ()
    if any(own not in (None, side) for own, side in sides):
        raise UserError(
            f"model= takes images of the shape {tuple(model.input_shape[1:])}, and the examples "
            f"have {image_shape}.\n"
            "Give another model, or image_size= to resize the images."
        )
    try:
        with unwrap_user_errors("model="):
            copied = keras.models.clone_model(model)
    except UserError:
        raise
    except Exception as error:  # Keras raises errors of many types for a layer that it refuses.
        raise UserError(
            f"model= cannot be copied: {one_line(error)}\n"
            "Give a function of (image_shape, classes) that returns the model."
        ) from error
    if model.built:
        copied.set_weights(model.get_weights())
    return copied
