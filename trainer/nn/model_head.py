"""Finds the layers that compute a model's logits, in the graph of its operations.

A model that subclasses keras.Model creates layers in any order. The order of its weights says
nothing about the order in which they are used.
"""

import keras
import tensorflow as tf

from trainer.nn.layer_paths import layer_paths, weight_paths

# Operations that map features to other features. Behind one of them, values are not logits.
_CONTRACTIONS = {"MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum", "Conv2D"}


def head(model: keras.Model) -> list[str]:
    """Returns the paths of the layers that compute the logits of `model`; mostly a single one.

    In a model of Keras' functional API this is mostly a Dense layer or a convolution, behind which
    there are only layers without weights. In other models, a search goes back from the logits
    through the graph of operations. It ends at each matrix product or convolution with weights. The
    layers that it meets count if the number of classes is in the shape of a weight. If there are
    none, the last layer with weights is the head in the functional API, and else the result is
    empty.
    """
    paths = layer_paths(model)
    if only := _only(model):
        return [path for path, layer in paths.items() if layer is only]
    found = _searched(model)
    if not found and not any(map(_chooses_order, model._flatten_layers())):
        return [list(paths)[-1]]
    return found


def _only(model: keras.Model) -> keras.layers.Layer | None:
    """Returns the layer whose result, changed only by layers without weights, is the logits."""
    tensor = model.outputs[0]
    while True:
        operation, node, index = tensor._keras_history
        as_keras = type(operation).call.__module__.partition(".")[0] == "keras"  # Not overridden.
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
    """Returns the paths of the layers that a search back from the logits meets, as in `head`."""
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
    """Returns whether `layer` is a user's own that holds others and calls them in its own order."""
    functional = isinstance(layer, keras.Sequential) or getattr(layer, "inputs", None)
    own = type(layer).__module__.partition(".")[0] != "keras"
    return bool(layer._layers) and own and not functional


def _traced(model: keras.Model) -> tuple[tf.Graph, tf.Tensor]:
    """Returns the graph of an inference, with all functions inlined, and its logits."""
    inputs = tf.TensorSpec([2, *model.input_shape[1:]], model.inputs[0].dtype)
    eager = tf.config.functions_run_eagerly()
    # The model's own tf.functions become a part of the graph.
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
    """Returns the operations that depend on images, and the weights of all other operations."""
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
    """Returns the weights that a search from `last` to the images meets."""
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
