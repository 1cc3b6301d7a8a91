"""What is worth saying of a user's model that is trained as it stands."""

import hashlib
import json
from typing import Any

import keras
from absl import logging


def say(name: str, network: keras.Model) -> None:
    """Warns of parts that the model calls for inference and that are trained all the same.

    Keras' fit does the same: with training=False, batch normalization uses its moving statistics
    and dropout drops nothing, while the gradient reaches the weights.
    """
    for operation in getattr(network, "operations", []):
        calls = getattr(operation, "_inbound_nodes", [])
        if any(call.arguments.kwargs.get("training") is False for call in calls) and getattr(
            operation, "trainable_variables", None
        ):
            logging.warning(
                "--model=%s calls %s with training=False: its weights are trained, its batch "
                "normalization and dropout stay in inference; %s.trainable = False keeps its "
                "weights as they are.",
                *(name, operation.name, operation.name),
            )


def fingerprint(network: keras.Model) -> str | None:
    """Returns SHA-256 over the model's configuration in hexadecimal; None if it has none.

    It tells two models of the same shapes apart, such as before and after an edit of an activation.
    Keras numbers the names of layers by process, so that their order stands for them here; the
    kernel of ghost batch normalization depends on the device and is left out.
    """
    try:
        configuration = keras.saving.serialize_keras_object(network)
        names = {layer.name: f"#{i}" for i, layer in enumerate(network._flatten_layers())}
        text = json.dumps(_plain(configuration, names), sort_keys=True)
    except Exception:  # Of a layer's get_config, the user's own: it may raise what it likes.
        return None
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any, names: dict[str, str]) -> Any:
    """Returns a configuration with other names for its layers, and text for what JSON has not."""
    match value:
        case dict():
            return {str(k): _plain(v, names) for k, v in value.items() if k not in ("kernel",)}
        case list() | tuple():
            return [_plain(each, names) for each in value]
        case str():
            return names.get(value, value)
        case bool() | int() | float() | None:
            return value
    return type(value).__name__
