"""Fingerprint of a model's configuration, by which an edit of its code is noticed on resume."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import keras

# The kernel of ghost batch normalization depends on the device, and shapes on the images: a layer
# whose own shapes differ does not take the run's weights.
_LEFT_OUT = {"kernel", "batch_shape", "shape", "build_input_shape", "build_config"}


def fingerprint(network: keras.Model) -> str | None:
    """Returns SHA-256 over the model's configuration in hexadecimal; None if it has none.

    It tells two models of the same shapes apart, such as before and after an edit of an activation,
    but not two Lambda layers. Keras numbers the names of layers by process, so that their order
    stands for them here.
    """
    try:
        configuration = keras.saving.serialize_keras_object(network)
        names = {name: f"#{i}" for i, name in enumerate(dict.fromkeys(_names(configuration)))}
        text = json.dumps(_plain(configuration, names), sort_keys=True)
    except Exception:  # Of a layer's get_config, the user's own: it may raise what it likes.
        return None
    return hashlib.sha256(text.encode()).hexdigest()


def _names(value: Any) -> Iterator[str]:
    """Yields the names of layers and operations in a configuration."""
    if isinstance(value, dict):
        if isinstance(value.get("name"), str):
            yield value["name"]
        for each in value.values():
            yield from _names(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _names(each)


def _plain(value: Any, names: dict[str, str]) -> Any:
    """Returns a configuration with other names for its layers, and text for what JSON has not.

    A layer's name stands as its `name`, or in front of numbers where layers are connected.
    """
    match value:
        case {"class_name": "__lambda__"}:
            return "lambda"  # Its code holds the numbers of its lines.
        case dict():
            kept = {str(key): each for key, each in value.items() if key not in _LEFT_OUT}
            return {
                key: names.get(each, each) if key == "name" else _plain(each, names)
                for key, each in kept.items()
            }
        case [str() as name, int(), *rest]:
            return [names.get(name, name), value[1], *(_plain(each, names) for each in rest)]
        case list() | tuple():
            return [_plain(each, names) for each in value]
        case str() | bool() | int() | float() | None:
            return value
    return type(value).__name__
