"""Checks a user's model for features of Keras' fit that this program does not support.

`check` refuses a model with such a feature before training, and names the feature. Otherwise, a run
could learn something other than the user asked for, or could not be repeated. If a feature, such as
a call of `compile`, does not change what the run learns, `check` only warns.
"""

import re
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import logging
from keras.src.random.seed_generator import global_seed_generator

from trainer.errors import UserError
from trainer.nn.user_code import explain_refusal, unwrap_user_errors

# Methods of keras.Model that implement fit and evaluate. This program does not call them.
_METHODS = (
    *("train_step", "test_step", "compute_loss", "compute_metrics"),
    *("fit", "evaluate", "make_train_function", "make_test_function"),
)
_PROBABILITIES = {"Softmax": "softmax", "Sigmoid": "sigmoid"}
_PASSED_OVER = {"Identity", "Cast", "Reshape", "Squeeze"}


def check(name: str, network: keras.Model, images: tf.TensorSpec) -> None:
    """Checks that a run can reproduce everything that `network` does.

    Args:
      name: value of --model.
      network: the user's model, before its batch norms become ghost batch norms.
      images: shape and data type of the network's input; the batch size must be known.

    Raises:
      UserError: if the network has a feature that a run cannot reproduce.
    """
    _check_class(name, network)
    _check_types(name, network)
    graphs = [_trace(name, network, images, training) for training in (False, True)]
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
            f"--model={name} overrides {own[0]}, which this program does not call.\n"
            "Remove it; the loss is the cross entropy plus the losses of layers (add_loss)."
        )
    for layer in network._flatten_layers():
        if layer._metrics:
            raise UserError(
                f"--model={name} has a metric, {layer._metrics[0].name}, in its layer "
                f"{layer.name}, which this program does not update.\nRemove the metric."
            )
    if network.compiled:
        logging.warning("--model=%s is compiled; its optimizer, loss and metrics are unused.", name)


def _warn_of_inference(name: str, network: keras.Model) -> None:
    """Warns of layers that train, although the model calls them with training=False.

    In a functional model, Keras' fit replaces training=False by True in the calls of all layers.
    This program's training step does the same. So the weights and moving statistics change.
    """
    for operation in getattr(network, "operations", []):
        calls = getattr(operation, "_inbound_nodes", [])
        inference = any(call.arguments.kwargs.get("training") is False for call in calls)
        if inference and getattr(operation, "trainable_variables", None):
            logging.warning(
                "--model=%s calls %s with training=False, which Keras replaces in training: its "
                "weights and moving statistics are trained. Set %s.trainable = False to keep them.",
                *(name, operation.name, operation.name),
            )


def _check_types(name: str, network: keras.Model) -> None:
    for layer in network._flatten_layers(include_self=False):
        if layer.compute_dtype == "float16":
            raise UserError(
                f"--model={name}: layer {layer.name} computes in float16, whose gradients need a "
                "loss scale, which this program does not have.\n"
                "Leave its dtype out, and use --precision=bfloat16."
            )
        others = {v.dtype for v in layer.trainable_variables} - {"float32"}
        if others:
            raise UserError(
                f"--model={name}: layer {layer.name} has parameters of type {others.pop()}, but "
                "only float32 can be trained.\nLeave its dtype out."
            )


def _trace(name: str, network: keras.Model, images: tf.TensorSpec, training: bool) -> tf.Graph:
    """Returns the graph of the network's forward pass, in training or in inference."""

    def forward(images: tf.Tensor) -> tf.Tensor:
        with keras.StatelessScope():  # The model's variables do not change in this scope.
            return network(images, training=training)

    with explain_refusal(name, "cannot be called on images"):
        return tf.function(forward, autograph=False).get_concrete_function(images).graph


def _check_weights(name: str, network: keras.Model) -> None:
    """Refuses a model without trainable weights, or with unusable constraints or regularizers.

    A constraint must not change the shape of its weight. Constraints and regularizers must not draw
    random numbers.
    """
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
                        f"{weight.shape}.\nReturn a tensor of the shape that it receives."
                    )
        if scope.get_current_value(generator) is not None:
            raise UserError(
                f"--model={name} draws random numbers in a constraint or regularizer, which the "
                "seed of the run cannot control.\nRemove the random numbers."
            )

    with unwrap_user_errors(f"--model={name}"):
        graph = tf.function(functions, autograph=False).get_concrete_function().graph
    _check_randomness(name, graph)


def _nodes(graph: tf.Graph) -> list[Any]:
    """Returns the operations of a graph and of the functions that it calls."""
    definition = graph.as_graph_def()
    return [*definition.node, *(n for f in definition.library.function for n in f.node_def)]


def _check_assignments(name: str, graph: tf.Graph) -> None:
    """Refuses a model that assigns to a tf.Variable, such as the `value` of a Keras variable.

    This check does not find an assignment to the Keras variable itself, since a StatelessScope adds
    no operation for it to the graph. The training step refuses such assignments, except to the
    states of random layers.
    """
    for node in _nodes(graph):
        if re.fullmatch(r"Assign\w*VariableOp|ResourceScatter\w+", node.op):
            raise UserError(
                f"--model={name} assigns to a tf.Variable during a call ({node.name}), which an "
                "update of several micro-batches cannot reproduce.\nRemove that layer."
            )


def _check_randomness(name: str, graph: tf.Graph) -> None:
    """Refuses random operations that keep a state in TensorFlow: a run cannot set this state."""
    for node in _nodes(graph):
        stateful = node.op.startswith(("Stateful", "Rng")) and node.op != "StatefulPartitionedCall"
        if stateful or {"seed", "seed2"} <= set(node.attr):
            raise UserError(
                f"--model={name} draws random numbers by TensorFlow's {node.op} ({node.name}), "
                "which the seed of the run cannot control.\n"
                "Use keras.layers.Dropout, or keras.random with a keras.random.SeedGenerator."
            )


def _check_variables(name: str, network: keras.Model, graph: tf.Graph) -> None:
    known = [*network.variables, global_seed_generator().state]
    handles = {id(part.handle) for variable in known for part in _parts(variable.value)}
    for variable in graph.variables:
        if id(variable.handle) not in handles:
            if "seed_generator_state" in variable.name:
                raise UserError(
                    f"--model={name} draws by a keras.random.SeedGenerator that Keras does not "
                    "see.\nMake it an attribute of the layer that uses it, set in its __init__."
                )
            raise UserError(
                f"--model={name} uses a tf.Variable that Keras does not see, "
                f"{_place(network, variable)}: checkpoints would not contain it.\n"
                "Create it by the layer's add_weight."
            )


def _place(network: keras.Model, variable: tf.Variable) -> str:
    """Returns the attribute and layer that hold `variable`, or its name if no layer holds it."""
    for layer in network._flatten_layers():
        for attribute, value in vars(layer).items():
            if isinstance(value, tf.Variable) and any(p is variable for p in _parts(value)):
                return f"{attribute} of layer {layer.name}"
    return variable.name


def _parts(value: tf.Variable) -> list[tf.Variable]:
    """Returns the copies of a variable, one for each replica."""
    return list(getattr(value, "values", [value]))


def _check_logits(name: str, network: keras.Model, graph: tf.Graph, images: tf.TensorSpec) -> None:
    """Refuses a network that returns probabilities.

    The network returns probabilities if the last operation in the graph is a softmax or a sigmoid.
    Other operations may compute the same function. So if the last operation is neither, this check
    calls the network on large random inputs. It refuses the network if all outputs are between 0
    and 1, and some are near 1.
    """
    kind = _PROBABILITIES.get(_last_operation(graph), "")
    if not kind and images.dtype.is_floating:
        # A few images are enough. In float64, 4,096 images of 1,024×1,024 pixels take 96 GiB.
        shape = (min(images.shape[0], 32), *images.shape[1:])
        large = 1e6 * np.random.default_rng(0).standard_normal(shape)
        rows = _outputs(network, tf.cast(large, images.dtype))
        if rows.ndim == 2 and np.all((rows >= 0) & (rows <= 1)) and rows.max() > 0.9:
            kind = "softmax" if np.allclose(rows.sum(axis=1), 1, atol=1e-2) else "sigmoid"
    if kind:
        raise UserError(
            f"--model={name} returns probabilities, but it must return logits: remove the {kind} "
            "from its last layer"
        )


def _outputs(network: keras.Model, images: tf.Tensor) -> np.ndarray:
    """Returns the network's outputs as float64, or an empty array if the network fails."""
    try:
        with keras.StatelessScope():
            return np.asarray(network(images, training=False), np.float64)
    except Exception:
        return np.empty(0)


def _last_operation(graph: tf.Graph) -> str:
    """Returns the type of the graph's last operation that is not a cast or a reshape."""
    operation = tf.nest.flatten(graph.structured_outputs)[0].op
    while operation.type in _PASSED_OVER:
        operation = operation.inputs[0].op
    return operation.type
