"""Computes a fingerprint of a model's configuration, so that a resumed run notices code edits."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import keras

from trainer.system.output import log

# Entries that the fingerprint leaves out, because a run may resume with other values. `kernel`, the
# kernel of ghost batch normalization, depends on the device. Shapes depend on the image size. (An
# edit that changes the shapes of weights is noticed anyway: the checkpoint then cannot be read.)
_LEFT_OUT = {"kernel", "batch_shape", "shape", "build_input_shape", "build_config"}


def fingerprint(network: keras.Model) -> str | None:
    """Returns the SHA-256 of the model's configuration; None if Keras cannot serialise the model.

    For example, another activation changes the fingerprint; an edit in a Lambda layer does not. The
    names that Keras gives to layers may differ between processes. So each name is replaced by a
    number, in the order in which the names appear in the configuration.
    """
    try:
        configuration = keras.saving.serialize_keras_object(network)
        names = {name: f"#{i}" for i, name in enumerate(dict.fromkeys(_names(configuration)))}
        text = json.dumps(_plain(configuration, names), sort_keys=True)
    except Exception:  # A layer's get_config is the user's code and may raise any exception.
        return None
    return hashlib.sha256(text.encode()).hexdigest()


def of_user(name: str, model: keras.Model) -> str | None:
    """Returns the fingerprint of `model` if --model=`name` is a user's own model, else None.

    Call this function before --freeze changes the model, since the fingerprint would change too.
    """
    return fingerprint(model) if ":" in name else None


def compare(name: str, own: str | None, learned: str | None) -> None:
    """Logs a warning if the fingerprint of --model=`name` differs from a checkpoint's.

    `own` is the model's fingerprint now; `learned` is the checkpoint's fingerprint, None if absent.
    Without the warning, some edits would stay unnoticed. For example, another activation function
    does not change the shapes of weights, so the checkpoint can still be read.
    """
    if learned not in (None, own):
        log(
            f"--model={name} has another configuration than when this run began: its code or Keras "
            "has changed"
        )


def _names(value: Any) -> Iterator[str]:
    """Yields the names of layers and operations in a configuration, in order of appearance."""
    if isinstance(value, dict):
        if isinstance(value.get("name"), str):
            yield value["name"]
        for item in value.values():
            yield from _names(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _names(item)


def _plain(value: Any, names: dict[str, str]) -> Any:
    """Returns a configuration in types that JSON can hold, with each layer name replaced.

    `names` maps each layer name to its replacement. In a configuration, a layer's name is the value
    of `name`, or the first item of a connection [name, number, ...].
    """
    match value:
        case {"class_name": "__lambda__"}:
            return "lambda"  # A lambda's code has line numbers, which edits elsewhere change.
        case dict():
            return {
                str(key): names.get(item, item) if key == "name" else _plain(item, names)
                for key, item in value.items()
                if key not in _LEFT_OUT
            }
        case [str() as name, int(), *rest]:
            return [names.get(name, name), value[1], *(_plain(item, names) for item in rest)]
        case list() | tuple():
            return [_plain(item, names) for item in value]
        case str() | bool() | int() | float() | None:
            return value
    return type(value).__name__  # JSON cannot hold the value.
