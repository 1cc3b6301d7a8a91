"""Builds a model by a user's own function, which --model=module:function names.

A Python program may also give a function that has no such name. It is then --model=python:model,
and only a call that has received the function can build the model.
"""

import importlib
import inspect
import os
import sys
import types
from collections.abc import Callable
from typing import Any

import keras

from trainer.errors import UserError
from trainer.nn.models import python_name
from trainer.nn.user_code import explain_refusal, unwrap_user_errors
from trainer.system import python_objects


def build(name: str, image_shape: tuple[int, int, int], classes: int) -> keras.Model:
    """Calls a user's function with (image_shape, classes) and returns its model.

    `name` is the value of --model: module:function, or python:model.

    Raises:
        UserError: if the function does not exist, does not take these two arguments, raises an
            error, or does not return a Keras model. Also if this call has not received the model
            of a Python program.
    """
    function = _given() if name == python_name.NAME else _named(name)
    function_name = name.partition(":")[2]
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


def check_name(name: str) -> None:
    """Checks `name`, the value of --model, without the import of its module.

    The module may build layers when it is imported. So it is imported only while a model is built:
    then the seed, the precision and the strategy are set.

    Raises:
        UserError: if the module or the function has no name, or this call has not received the
            model of a Python program.
    """
    module, _, function = name.partition(":")
    if name == python_name.NAME:
        _given()
    elif not (module and function):
        raise UserError(
            f"--model={name} lacks the name of a module or function.\n"
            f"Name both, as in --model={module or 'MODULE'}:{function or 'FUNCTION'}."
        )


def _given() -> Callable[..., Any]:
    function = python_objects.given().model
    if function is None:
        raise UserError(
            f"only a Python program has --model={python_name.NAME}: trainer.train(model=...).\n"
            "Give model= to this function too. A function in a module has a name for the command "
            "line: --model=module:function."
        )
    return function


def _named(name: str) -> Callable[..., Any]:
    module, function_name = load(name), name.partition(":")[2]
    function = getattr(module, function_name, None)
    if not callable(function):
        raise UserError(
            f"--model={name}: {module.__name__} has no function {function_name!r}.\n"
            f"Name a function of this module, as in --model={module.__name__}:FUNCTION."
        )
    return function


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
        module_name = module_name.strip(".").removesuffix(".py") or "MODULE"
        raise UserError(
            f"--model={name}: cannot import {name.partition(':')[0]!r}: {error}.\n"
            "Name a module that `import` finds in this folder or in PYTHONPATH, as in "
            f"--model={module_name}:FUNCTION."
        ) from error
