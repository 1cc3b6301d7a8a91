"""Names a model's layers and weights by paths that are the same each time the model is built.

A layer's path consists of its own name and the names of the layers around it. Keras numbers unnamed
layers over the whole process: the first convolution may be conv2d in one model and conv2d_13 in the
next. Here, the numbers start again in each model. Paths do not contain the names of Sequential
models, because Keras leaves these names out when it loads a file.
"""

import re
from collections.abc import Iterator

import keras


def layer_paths(model: keras.Model) -> dict[str, keras.layers.Layer]:
    """Returns the layers with weights of their own, by path, in the order of `model.weights`."""
    return {path: layer for path, layer, _ in _weights(model)}


def weight_paths(model: keras.Model) -> dict[str, keras.Variable]:
    """Returns the model's parameters and statistics by path, such as group1_block1_conv1/kernel.

    The paths are in the order of `model.weights`.
    """
    weights = {}
    for path, _, variable in _weights(model):
        # Keras also numbers variables that were created without a name.
        name = "variable" if re.fullmatch(r"variable_\d+", variable.name) else variable.name
        key = whole = f"{path}/{name}"
        number = 1
        while key in weights:
            number += 1
            key = f"{whole}#{number}"
        weights[key] = variable
    return weights


def _weights(model: keras.Model) -> Iterator[tuple[str, keras.layers.Layer, keras.Variable]]:
    """Yields (path of the layer, layer, variable) for each of `model.weights`."""
    layers = list(model._flatten_layers())
    owners = {
        id(variable): layer
        for layer in layers
        for variable in [*layer._trainable_variables, *layer._non_trainable_variables]
    }
    names = _own_names(layers)
    containers = {layer.name for layer in layers if isinstance(layer, keras.Sequential)}
    same: dict[str, list[int]] = {}  # Ids of the layers at each path. Layers may share a path.
    for variable in model.weights:
        *parents, _ = variable.path.split("/")
        path = "/".join(names.get(name, name) for name in parents if name not in containers)
        owner = owners[id(variable)]
        members = same.setdefault(path, [])
        if id(owner) not in members:
            members.append(id(owner))
        number = members.index(id(owner)) + 1
        yield path if number == 1 else f"{path}#{number}", owner, variable


def _own_names(layers: list[keras.layers.Layer]) -> dict[str, str]:
    """Maps each name that Keras chose, such as conv2d_13, to a name numbered within `layers`."""
    numbered: dict[str, list[tuple[int, str]]] = {}
    for layer in layers:
        kind = _snake_case(type(layer).__name__).removeprefix("ghost_")
        if match := re.fullmatch(rf"({re.escape(kind)})(?:_(\d+))?", layer.name):
            numbered.setdefault(kind, []).append((int(match[2] or 0), layer.name))
    return {
        name: f"{kind}_{number}" if number else kind
        for kind, members in numbered.items()
        for number, (_, name) in enumerate(sorted(set(members)))
    }


def _snake_case(name: str) -> str:
    """Returns a class's name as Keras writes it in the names of layers."""
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()
