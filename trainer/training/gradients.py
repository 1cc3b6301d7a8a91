"""Forward and back over one run of examples: all that they add to an update."""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from trainer.errors import UserError
from trainer.nn import seeds
from trainer.nn.ghost_batch_norm import (
    GhostBatchNormalization,
    Statistics,
    collect_statistics,
)
from trainer.nn.losses import cross_entropy


class GradientSums(NamedTuple):
    """Sums over examples, all float32.

    Attributes:
      gradients: of the data loss and of losses that layers add, one a parameter, of its shape.
      statistics: (means, biased variances) by batch-norm layer, each [c], over ghost batches.
      loss: data loss, [].
      hits: examples that were right, [].
    """

    gradients: list[tf.Tensor]
    statistics: list[tuple[tf.Tensor, tf.Tensor]]
    loss: tf.Tensor
    correct: tf.Tensor


class Backward:
    """The pass over a model's parameters: call it with examples in a traced function.

    Attributes:
      parameters: what is trained.
      constraints: what each parameter is passed through after an update, or None.
      norms: the trainable ghost batch norms.
      moving: whether the moving statistics of each of `norms` move: not if the model calls it with
        training=False. Known once a pass has been traced.
    """

    def __init__(
        self, model: keras.Model, *, label_smoothing: float, seed: int, order_version: int
    ) -> None:
        self.parameters = [variable.value for variable in model.trainable_variables]
        self.constraints = [_as_written(v.constraint) for v in model.trainable_variables]
        self.norms = [
            layer
            for layer in model._flatten_layers()
            if isinstance(layer, GhostBatchNormalization) and layer.trainable
        ]
        self.moving = [True] * len(self.norms)
        self._model = model
        self._label_smoothing = label_smoothing
        self._seed = seed
        self._order_version = order_version
        self._seed_states = seeds.seed_states(model)
        self._generator = seeds.global_generator()

    def __call__(self, images: tf.Tensor, labels: tf.Tensor, position: tf.Tensor) -> GradientSums:
        """What images uint8 [b, h, w, c] with labels [b] add, the first of them at `position`."""
        with collect_statistics() as collected, tf.GradientTape() as tape:
            logits, added = self._forward(images, position)
            loss = tf.reduce_sum(cross_entropy(logits, labels, self._label_smoothing))
            # Of the mean over B examples, so that they count once an update.
            total = loss + tf.cast(tf.shape(labels)[0], tf.float32) * added
        gradients = tape.gradient(
            total, self.parameters, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        statistics = [self._statistics(number, collected) for number in range(len(self.norms))]
        right = tf.equal(tf.argmax(logits, -1, output_type=labels.dtype), labels)
        correct = tf.reduce_sum(tf.cast(right, tf.float32))
        return GradientSums([tf.convert_to_tensor(g) for g in gradients], statistics, loss, correct)

    def _statistics(self, number: int, collected: list[Statistics]) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the sums of one of `norms`; zeros if the pass called it for inference alone."""
        layer = self.norms[number]
        entries = [entry for entry in collected if entry.layer is layer]
        if not entries:
            raise UserError(
                f"the model never calls its layer {layer.path} in training: leave it out."
            )
        sums: list[Any] = [entry[1:] for entry in entries if entry.mean_sum is not None]
        here = tf.compat.v1.get_default_graph()
        if any(value.graph is not here for pair in sums for value in pair):
            raise UserError(
                f"the model calls its layer {layer.path} in a tf.function, tf.cond or loop of its "
                "own, where its statistics cannot be reached:\ncall it outside of that."
            )
        self.moving[number] = bool(sums)
        if not sums:
            zeros = tf.zeros(layer.moving_mean.shape)
            return zeros, zeros
        # A layer that is called twice counts as one, with the mean of both.
        means, variances = (tf.add_n(values) / len(sums) for values in zip(*sums, strict=True))
        return means, variances

    def _forward(self, images: tf.Tensor, position: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Logits, float32 [b, classes], and the sum of the losses that layers add."""
        # Masks follow the position, so that replicas differ and a resumed run needs no state.
        states = self._seed_states
        seeds.use_in_this_thread(self._generator)
        drawn, layers = seeds.values(len(states), position, self._seed, self._order_version)
        mapping = [(self._generator.state, drawn), *zip(states, layers, strict=True)]
        with keras.StatelessScope(state_mapping=mapping, collect_losses=True) as scope:
            logits = self._model(images, training=True)
        own = {id(state) for state in self._seed_states}  # == of variables compares their values
        for variable in self._model.variables:
            if scope.get_current_value(variable) is not None and id(variable) not in own:
                raise UserError(
                    f"the model changes {variable.path} as it trains, which an update of several "
                    "micro-batches cannot follow:\nleave that layer out; batch normalization and "
                    "dropout are taken care of."
                )
        return logits, _summed(scope.losses)

    def regularisation(self) -> list[tf.Tensor]:
        """The gradient of the weights' own regularizers, one a parameter; once an update.

        No example has a part in it, so that it adds nothing to the gradient's noise.
        """
        with tf.GradientTape() as tape:
            regularizers = [
                (_as_written(v.regularizer), v)
                for v in self._model.trainable_variables
                if v.regularizer
            ]
            total = _summed([regularizer(v) for regularizer, v in regularizers])
        return tape.gradient(
            total, self.parameters, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )


def _as_written(function: Callable | None) -> Any:
    """Returns a function of the user's that AutoGraph leaves alone, as Keras' fit has it."""
    return function and tf.autograph.experimental.do_not_convert(function)


def _summed(losses: list[Any]) -> tf.Tensor:
    """Returns the sum of losses of any shape and type, float32 [], as Keras' fit takes them."""
    return tf.add_n([tf.constant(0.0), *(tf.reduce_sum(tf.cast(x, tf.float32)) for x in losses)])
