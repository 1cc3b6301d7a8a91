"""Finds the head of a model: the layers that compute its logits.

A subclass of keras.Model may create its layers in any order, so the order of its weights does not
show which layer is the last. This module searches the graph of the model's operations instead.
"""

import keras
import tensorflow as tf

from trainer.nn.layer_paths import layer_paths, weight_paths

# Types of operations at which the search of `head` stops: matrix products and convolutions.
_CONTRACTIONS = {"MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum", "Conv2D"}


def head(model: keras.Model) -> list[str]:
    """Returns the paths of the layers that compute the logits of `model`: usually one layer.

    In a model of Keras' functional API, the head is the last Dense layer or convolution, if only
    layers without weights follow it. In other cases, a search goes from the logits back through the
    graph of operations. It stops at each matrix product or convolution with weights. The search may
    meet a weight that has an axis with one entry per class. The layer of this weight then belongs
    to the head.

    If the search finds no layer, the head is the last layer with weights. There is one exception:
    if a user's own class calls its layers in its code, their order is not known, and this function
    returns an empty list.
    """
    paths = layer_paths(model)
    if only := _only(model):
        return [path for path, layer in paths.items() if layer is only]
    found = _searched(model)
    if not found and not any(map(_chooses_order, model._flatten_layers())):
        return [list(paths)[-1]]
    return found


def _only(model: keras.Model) -> keras.layers.Layer | None:
    """Returns the last Dense or Conv2D, or None if a later layer has weights or several inputs."""
    tensor = model.outputs[0]
    while True:
        operation, node, index = tensor._keras_history
        # True if no class of the user overrides `call`.
        as_keras = type(operation).call.__module__.partition(".")[0] == "keras"
        if as_keras and isinstance(operation, keras.Model):
            tensor = operation.outputs[index]
            continue
        if as_keras and isinstance(operation, (keras.layers.Dense, keras.layers.Conv2D)):
            return operation
        before = operation._inbound_nodes[node].input_tensors
        if getattr(operation, "weights", None) or len(before) != 1:
            return None
        (tensor,) = before


def _searched(model: keras.Model) -> list[str]:
    """Returns the paths of the layers that the search described in `head` finds."""
    graph, logits = _traced(model)
    paths = weight_paths(model)
    handles = {
        id(part.handle): path
        for path, variable in paths.items()
        for part in getattr(variable.value, "values", [variable.value])  # A copy for each device.
    }
    captured = {
        inside.op: {handles[id(outside)]}
        for outside, inside in graph.captures
        if id(outside) in handles
    }
    met = _met_from(logits.op, *_origins(graph, captured))
    layers = {
        path.rpartition("/")[0] for path in met if logits.shape[-1] in tuple(paths[path].shape)
    }
    return [path for path in layer_paths(model) if path in layers]


def _chooses_order(layer: keras.layers.Layer) -> bool:
    """Returns whether `layer` is of a user's class whose code may call sublayers in any order."""
    functional = isinstance(layer, keras.Sequential) or getattr(layer, "inputs", None)
    own = type(layer).__module__.partition(".")[0] != "keras"
    return bool(layer._layers) and own and not functional


def _traced(model: keras.Model) -> tuple[tf.Graph, tf.Tensor]:
    """Traces an inference with all functions inlined, and returns the graph and its logits."""
    inputs = tf.TensorSpec([2, *model.input_shape[1:]], model.inputs[0].dtype)
    eager = tf.config.functions_run_eagerly()
    # With this setting, the graph contains the operations of the model's own tf.functions.
    tf.config.run_functions_eagerly(True)
    try:
        traced = tf.function(lambda images: model(images, training=False), autograph=False)
        graph = traced.get_concrete_function(inputs).graph
    finally:
        tf.config.run_functions_eagerly(eager)
    return graph, graph.structured_outputs


def _origins(
    graph: tf.Graph, captured: dict[tf.Operation, set[str]]
) -> tuple[set[tf.Operation], dict[tf.Operation, set[str]]]:
    """Returns the operations that depend on the images.

    Also returns, for each other operation, the paths of the weights that it depends on.
    """
    images = {graph.inputs[0].op}
    weights: dict[tf.Operation, set[str]] = dict(captured)
    for op in graph.get_operations():  # An operation comes after its inputs.
        before = [each.op for each in op.inputs]
        if any(each in images for each in before):
            images.add(op)
        elif op not in captured:
            weights[op] = set().union(*(weights.get(each, set()) for each in before))
    return images, weights


def _met_from(
    last: tf.Operation, images: set[tf.Operation], weights: dict[tf.Operation, set[str]]
) -> set[str]:
    """Returns the paths of the weights that the search of `head` meets on its way from `last`."""
    met: set[str] = set()
    seen, ahead = {last}, [last]
    while ahead:
        op = ahead.pop()
        before = [each.op for each in op.inputs]
        own = set().union(*(weights.get(each, set()) for each in before))
        met |= own
        if not (own and op.type in _CONTRACTIONS):
            new = [each for each in before if each in images and each not in seen]
            seen.update(new)
            ahead += new
    return met
