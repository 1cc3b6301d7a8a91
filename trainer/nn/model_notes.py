"""What is worth saying of a user's model that is trained as it stands."""

import hashlib
import json
from typing import Any

import keras
from absl import logging


def say(name: str, network: keras.Model) -> None:
    """Warns of parts that the model calls for inference and that are trained all the same.

    In a functional model, Keras' fit replaces the training=False of a call by its own True, and so
    does this program's step: weights and moving statistics of that part move.
    """
    for operation in getattr(network, "operations", []):
        calls = getattr(operation, "_inbound_nodes", [])
        if any(call.arguments.kwargs.get("training") is False for call in calls) and getattr(
            operation, "trainable_variables", None
        ):
            logging.warning(
                "--model=%s calls %s with training=False, which Keras replaces in training: its "
                "weights and moving statistics are trained; %s.trainable = False keeps them.",
                *(name, operation.name, operation.name),
            )


def fingerprint(network: keras.Model) -> str | None:
    """Returns SHA-256 over the model's configuration in hexadecimal; None if it has none.

    It tells two models of the same shapes apart, such as before and after an edit of an activation,
    but not two Lambda layers. Keras numbers the names of layers by process, so that their order
    stands for them here; the kernel of ghost batch normalization depends on the device and is left
    out.
    """
    try:
        configuration = keras.saving.serialize_keras_object(network)
        names = {layer.name: f"#{i}" for i, layer in enumerate(network._flatten_layers())}
        text = json.dumps(_plain(configuration, names), sort_keys=True)
    except Exception:  # Of a layer's get_config, the user's own: it may raise what it likes.
        return None
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any, names: dict[str, str]) -> Any:
    """Returns a configuration with other names for its layers, and text for what JSON has not.

    A layer's name stands as its `name`, or in front of numbers where layers are connected.
    """
    match value:
        case {"class_name": "__lambda__"}:
            return "lambda"  # Its code holds the numbers of its lines.
        case dict():
            renamed = {k: names.get(v, v) if k == "name" else v for k, v in _strings(value)}
            rest = {str(k): v for k, v in value.items() if not isinstance(v, str)}
            plain = {k: _plain(v, names) for k, v in rest.items()}
            return {k: v for k, v in (renamed | plain).items() if k != "kernel"}
        case [str() as name, int(), *rest]:
            return [names.get(name, name), value[1], *(_plain(each, names) for each in rest)]
        case list() | tuple():
            return [_plain(each, names) for each in value]
        case str() | bool() | int() | float() | None:
            return value
    return type(value).__name__


def _strings(value: dict[Any, Any]) -> list[tuple[str, str]]:
    return [(str(k), v) for k, v in value.items() if isinstance(v, str)]
