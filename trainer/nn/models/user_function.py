"""Builds a model by a user's own function, which --model=module:function names."""

import importlib
import inspect
import os
import sys
import types

import keras

from trainer.errors import UserError
from trainer.nn.user_code import explain_refusal, unwrap_user_errors


def build(name: str, image_shape: tuple[int, int, int], classes: int) -> keras.Model:
    """Calls a user's function with (image_shape, classes) and returns its model.

    `name` is the value of --model: module:function.

    Raises:
        UserError: if the function does not exist, does not take these two arguments, raises an
            error, or does not return a Keras model.
    """
    module, function_name = load(name), name.partition(":")[2]
    function = getattr(module, function_name, None)
    if not callable(function):
        raise UserError(f"--model={name}: {module.__name__} has no function {function_name!r}")
    try:
        inspect.signature(function).bind(image_shape, classes)
    except TypeError as error:
        raise UserError(
            f"--model={name} cannot be called as {function_name}(image_shape, classes): {error}"
        ) from error
    with explain_refusal(name, "cannot be built"):
        model = function(image_shape, classes)
    if not isinstance(model, keras.Model):
        raise UserError(f"--model={name} returned a {type(model).__name__}: return a keras.Model")
    return model


def load(name: str) -> types.ModuleType:
    """Imports and returns the module in `name`, the value module:function of --model.

    Raises:
        UserError: if the module cannot be imported.
    """
    module_name, _, _ = name.partition(":")
    # `python -m` adds the current folder to sys.path. The command `crescendo` does not, so a user's
    # module in this folder would not be found.
    if not {"", os.getcwd()} & set(sys.path):
        sys.path.insert(0, os.getcwd())
    try:
        if module_name.startswith("."):
            raise ImportError("use its full name, without the first dot")
        with unwrap_user_errors(f"--model={name}"):
            return importlib.import_module(module_name)
    except (ImportError, ValueError) as error:
        raise UserError(f"--model={name}: cannot import {module_name!r}: {error}") from error
