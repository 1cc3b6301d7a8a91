"""Refuses what Keras' fit would do with a user's model, and this program would not.

Each is refused by name before anything is trained, since the run would learn something else than
the user asked for, or could not be repeated.
"""

import re
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import logging
from keras.src.random.seed_generator import global_seed_generator

from trainer.errors import UserError
from trainer.nn.user_code import one_line, unwrap_user_errors

# Methods of keras.Model that fit and evaluate are made of.
_METHODS = (
    *("train_step", "test_step", "compute_loss", "compute_metrics"),
    *("fit", "evaluate", "make_train_function", "make_test_function"),
)
_PROBABILITIES = {"Softmax": "softmax", "Sigmoid": "sigmoid"}
_PASSED_OVER = {"Identity", "Cast", "Reshape", "Squeeze"}
# An input that saturates a sigmoid, and an output that only a saturated one has.
_LARGE_INPUT, _SATURATED = 1e6, 0.9


def check(name: str, network: keras.Model, images: tf.TensorSpec) -> None:
    """Refuses what `network` does and a run could not follow.

    Args:
      name: the value of --model.
      network: the user's, before its batch normalization is made ghost.
      images: what it is called with: a batch of known size.

    Raises:
      UserError: its lines name what is refused, and the remedy.
    """
    _check_class(name, network)
    _check_types(name, network)
    graphs = [_traced(name, network, images, training) for training in (False, True)]
    for graph in graphs:
        _check_randomness(name, graph)
        _check_variables(name, network, graph)
        _check_assignments(name, graph)
    _check_weights(name, network)
    _check_logits(name, network, graphs[0], images)
    _warn_of_inference(name, network)


def _check_class(name: str, network: keras.Model) -> None:
    own = [m for m in _METHODS if getattr(type(network), m) is not getattr(keras.Model, m)]
    if own:
        raise UserError(
            f"--model={name} has a {own[0]} of its own, which this program does not call.\n"
            "Remove it: losses of layers (add_loss) and the cross entropy are what is trained."
        )
    for layer in network._flatten_layers():
        if layer._metrics:
            raise UserError(
                f"--model={name} keeps a metric of its own, {layer._metrics[0].name}, in its layer "
                f"{layer.name}, which this program does not follow.\nRemove it."
            )
    if network.compiled:
        logging.warning("--model=%s is compiled; its optimizer, loss and metrics are unused.", name)


def _warn_of_inference(name: str, network: keras.Model) -> None:
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


def _check_types(name: str, network: keras.Model) -> None:
    for layer in network._flatten_layers(include_self=False):
        if layer.compute_dtype == "float16":
            raise UserError(
                f"--model={name}: layer {layer.name} computes in float16, whose gradients need a "
                "loss scale that this program does not have.\n"
                "Leave its dtype out, and give --precision=bfloat16."
            )
        others = {v.dtype for v in layer.trainable_variables} - {"float32"}
        if others:
            raise UserError(
                f"--model={name}: layer {layer.name} has parameters of type {others.pop()}, and "
                "float32 alone is trained.\nLeave its dtype out."
            )


def _traced(name: str, network: keras.Model, images: tf.TensorSpec, training: bool) -> tf.Graph:
    """Returns the graph of a forward pass."""

    def forward(images: tf.Tensor) -> tf.Tensor:
        with keras.StatelessScope():  # No state is to move.
            return network(images, training=training)

    try:
        with unwrap_user_errors(f"--model={name}"):
            return tf.function(forward, autograph=False).get_concrete_function(images).graph
    except UserError:
        raise
    except Exception as error:  # Of Keras, about the user's model: its own reason.
        raise UserError(f"--model={name} cannot be called on images: {one_line(error)}") from error


def _check_weights(name: str, network: keras.Model) -> None:
    """Refuses a model without any to train, and constraints and regularizers that cannot be."""
    weights = network.trainable_variables
    if not weights:
        raise UserError(
            f"--model={name} has no weights to train.\nSet trainable = True on one of its layers."
        )
    generator = global_seed_generator().state

    def functions() -> None:
        with keras.StatelessScope() as scope:
            for weight in weights:
                if weight.regularizer:
                    weight.regularizer(weight)
                shape = tf.convert_to_tensor((weight.constraint or tf.identity)(weight)).shape
                if shape != weight.shape:
                    raise UserError(
                        f"--model={name}: the constraint of {weight.path} makes shape {shape} of "
                        f"{weight.shape}.\nReturn the shape that it is given."
                    )
        if scope.get_current_value(generator) is not None:
            raise UserError(
                f"--model={name} draws random numbers in a constraint or regularizer, which no "
                "seed of the run reaches.\nLeave that out."
            )

    with unwrap_user_errors(f"--model={name}"):
        graph = tf.function(functions, autograph=False).get_concrete_function().graph
    _check_randomness(name, graph)


def _nodes(graph: tf.Graph) -> list[Any]:
    """Returns the operations of a graph and of the functions that it calls."""
    definition = graph.as_graph_def()
    return [*definition.node, *(n for f in definition.library.function for n in f.node_def)]


def _check_assignments(name: str, graph: tf.Graph) -> None:
    """Refuses an assignment to a tf.Variable, such as a weight's `value`.

    Those of Keras' variables leave no operation here, and a step finds them by itself.
    """
    for node in _nodes(graph):
        if re.fullmatch(r"Assign\w*VariableOp|ResourceScatter\w+", node.op):
            raise UserError(
                f"--model={name} assigns to a tf.Variable as it is called ({node.name}), which an "
                "update of several micro-batches cannot follow.\nLeave that layer out."
            )


def _check_randomness(name: str, graph: tf.Graph) -> None:
    found = [node for node in _nodes(graph) if _is_stateful(node)]
    if found:
        raise UserError(
            f"--model={name} draws random numbers by TensorFlow's {found[0].op} ({found[0].name}), "
            "which no seed of the run reaches.\n"
            "Use keras.layers.Dropout, or keras.random with a keras.random.SeedGenerator."
        )


def _is_stateful(node: Any) -> bool:
    """Whether an operation draws from a state of the process. Keras' own layers have none such."""
    if {"seed", "seed2"} <= set(node.attr):
        return True
    return node.op.startswith(("Stateful", "Rng")) and node.op != "StatefulPartitionedCall"


def _check_variables(name: str, network: keras.Model, graph: tf.Graph) -> None:
    known = [*network.variables, global_seed_generator().state]
    handles = {id(part.handle) for variable in known for part in _parts(variable.value)}
    for variable in graph.variables:
        if id(variable.handle) not in handles:
            if "seed_generator_state" in variable.name:
                raise UserError(
                    f"--model={name} draws by a keras.random.SeedGenerator that Keras does not "
                    "see.\nMake it an attribute of the layer that draws, set in its __init__."
                )
            raise UserError(
                f"--model={name} uses a tf.Variable that Keras does not see, "
                f"{_place(network, variable)}: it would be in no checkpoint.\n"
                "Make it by the layer's add_weight."
            )


def _place(network: keras.Model, variable: tf.Variable) -> str:
    """Returns which attribute of which layer a variable is, or else its name."""
    for layer in network._flatten_layers():
        for attribute, value in vars(layer).items():
            if isinstance(value, tf.Variable) and any(p is variable for p in _parts(value)):
                return f"{attribute} of layer {layer.name}"
    return variable.name


def _parts(value: tf.Variable) -> list[tf.Variable]:
    """Returns the copies of a variable, one a replica."""
    return list(getattr(value, "values", [value]))


def _check_logits(name: str, network: keras.Model, graph: tf.Graph, images: tf.TensorSpec) -> None:
    """Refuses probabilities: by the last operation, or by what comes out.

    The last operation is that of a fresh model, too, whose outputs are all near to each other. A
    sigmoid that the user wrote out is found by what comes out at inputs that saturate it.
    """
    kind = _PROBABILITIES.get(_last_operation(graph), "")
    if not kind and images.dtype.is_floating:
        rng = np.random.default_rng(0)
        large = _LARGE_INPUT * rng.standard_normal(images.shape)
        rows = _outputs(network, tf.cast(large, images.dtype))
        if rows.ndim == 2 and np.all((rows >= 0) & (rows <= 1)) and rows.max() > _SATURATED:
            kind = "softmax" if np.allclose(rows.sum(axis=1), 1, atol=1e-2) else "sigmoid"
    if kind:
        raise UserError(
            f"--model={name} returns probabilities; it must return logits: remove the {kind} "
            "from its last layer"
        )


def _outputs(network: keras.Model, images: tf.Tensor) -> np.ndarray:
    """Returns what comes out, float64; [] if the network refuses such images, as a lookup may."""
    try:
        with keras.StatelessScope():  # No state is to move.
            return np.asarray(network(images, training=False), np.float64)
    except Exception:
        return np.empty(0)


def _last_operation(graph: tf.Graph) -> str:
    """Returns the type of the operation that the outputs come from."""
    (output, *_) = (
        graph.structured_outputs
        if isinstance(graph.structured_outputs, list)
        else [graph.structured_outputs]
    )
    operation = output.op
    while operation.type in _PASSED_OVER:
        operation = operation.inputs[0].op
    return operation.type
