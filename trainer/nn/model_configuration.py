"""Fingerprint of a model's configuration, by which a resumed run notices edits of the code."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import keras

from trainer.system.output import log

# Entries that the fingerprint leaves out: the kernel of ghost batch normalization depends on the
# device, and shapes depend on the image size. (If an edit changes the shapes of weights, the
# checkpoint cannot be read, so the fingerprint is not needed.)
_LEFT_OUT = {"kernel", "batch_shape", "shape", "build_input_shape", "build_config"}


def fingerprint(network: keras.Model) -> str | None:
    """Returns the SHA-256 of the model's configuration; None if Keras cannot serialise the model.

    For example, another activation changes the fingerprint; an edit in a Lambda layer does not. The
    numbers in Keras' layer names depend on the process, so names are replaced by numbers in order
    of appearance.
    """
    try:
        configuration = keras.saving.serialize_keras_object(network)
        names = {name: f"#{i}" for i, name in enumerate(dict.fromkeys(_names(configuration)))}
        text = json.dumps(_plain(configuration, names), sort_keys=True)
    except Exception:  # A layer's get_config is the user's code and may raise any exception.
        return None
    return hashlib.sha256(text.encode()).hexdigest()


def of_user(name: str, model: keras.Model) -> str | None:
    """Returns the fingerprint of a user's own model; None if --model=`name` is not one.

    Call it before --freeze changes the model.
    """
    return fingerprint(model) if ":" in name else None


def compare(name: str, own: str | None, learned: str | None) -> None:
    """Logs a warning if the fingerprint of --model=`name` differs from that of a checkpoint.

    For example, the edit of an activation function changes the fingerprint, but not the shapes of
    the weights.
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
    """Returns a configuration with `names` replaced; JSON can hold the result.

    A layer's name is the value of `name`, or the first item of a connection [name, number, ...].
    """
    match value:
        case {"class_name": "__lambda__"}:
            return "lambda"  # The code of a lambda has line numbers, which other edits may change.
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
