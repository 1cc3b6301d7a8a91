"""Computes gradients, loss, correct predictions and batch-norm statistics in one pass.

A pass is one forward and one backward computation of the model.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from trainer.errors import UserError
from trainer.nn import seeds
from trainer.nn.ghost_batch_norm import Statistics, collect_statistics
from trainer.nn.losses import MixedLabels, TrainingLoss, largest_share
from trainer.nn.moving_statistics import trained_norms
from trainer.nn.stochastic_depth import examples_from

_ZERO = tf.UnconnectedGradients.ZERO  # Gradient of a parameter that the loss does not depend on.


class GradientSums(NamedTuple):
    """Sums over the examples of one or more passes, all float32.

    Attributes:
      gradients: for each parameter, the gradient of the loss, including losses that layers add.
      statistics: for each batch norm, the sums of the means [c] and of the biased variances [c] of
        its ghost batches, which are the groups of examples that share statistics.
      loss: loss of the training targets, [], with class weights; losses of layers are left out.
      correct: number of examples whose label has the largest logit, []. The label of a mixed image
        is the label with the larger share.
    """

    gradients: list[tf.Tensor]
    statistics: list[tuple[tf.Tensor, tf.Tensor]]
    loss: tf.Tensor
    correct: tf.Tensor


class GradientFunction:
    """Computes the gradients of a model's parameters; call an instance in a traced function.

    Attributes:
      parameters: the trainable variables.
      constraints: each parameter's Keras constraint, to apply after an update, or None.
      norms: the trainable ghost batch norms.
      moving: for each of `norms`, whether training changes its moving statistics. A call of the
        instance sets the value to False if the model calls the layer only with training=False.
    """

    def __init__(
        self,
        model: keras.Model,
        *,
        loss: TrainingLoss,
        seed: int,
        order_version: int,
    ) -> None:
        self.parameters = [variable.value for variable in model.trainable_variables]
        self.constraints = [_as_written(v.constraint) for v in model.trainable_variables]
        self.norms = list(trained_norms(model).values())
        self.moving = [True] * len(self.norms)
        self._model = model
        self._loss = loss
        self._seed = seed
        self._order_version = order_version
        self._seed_states = seeds.seed_states(model)
        self._generator = seeds.global_generator()

    def __call__(
        self, images: tf.Tensor, labels: tf.Tensor | MixedLabels, position: tf.Tensor
    ) -> GradientSums:
        """Returns the sums over `images`, uint8 [b, h, w, c], with `labels`, [b].

        `position` is the number of examples that the run consumes before the first image.
        """
        with collect_statistics() as collected, tf.GradientTape() as tape:
            logits, added = self._forward(images, position)
            loss = tf.reduce_sum(self._loss(logits, labels))
            # An update divides the sum by the batch size. So `added`, which is a loss per call, is
            # multiplied by the number of examples of the call.
            total = loss + tf.cast(tf.shape(images)[0], tf.float32) * added
        gradients = tape.gradient(total, self.parameters, unconnected_gradients=_ZERO)
        statistics = [self._statistics(number, collected) for number in range(len(self.norms))]
        counted = largest_share(labels)
        right = tf.equal(tf.argmax(logits, -1, output_type=counted.dtype), counted)
        correct = tf.reduce_sum(tf.cast(right, tf.float32))
        return GradientSums([tf.convert_to_tensor(g) for g in gradients], statistics, loss, correct)

    def _statistics(self, number: int, collected: list[Statistics]) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the statistics of norms[number]; zeros if it is called only for inference."""
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
                "own, where its statistics cannot be reached:\ncall the layer outside of such code."
            )
        self.moving[number] = bool(sums)
        if not sums:
            zeros = tf.zeros(layer.moving_mean.shape)
            return zeros, zeros
        # A layer that is called several times contributes the mean of its calls.
        means, variances = (tf.add_n(values) / len(sums) for values in zip(*sums, strict=True))
        return means, variances

    def _forward(self, images: tf.Tensor, position: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns logits, float32 [b, classes], and the sum of the losses that layers add."""
        # Random masks depend on the position. So replicas draw different masks, and a resumed run
        # draws the same masks as a run without interruption.
        states = self._seed_states
        seeds.use_in_this_thread(self._generator)
        drawn, layers = seeds.values(len(states), position, self._seed, self._order_version)
        mapping = [(self._generator.state, drawn), *zip(states, layers, strict=True)]
        with (
            examples_from(position, self._seed),
            keras.StatelessScope(state_mapping=mapping, collect_losses=True) as scope,
        ):
            logits = self._model(images, training=True)
        own = {id(state) for state in states}  # Ids, because == would compare values.
        for variable in self._model.variables:
            if scope.get_current_value(variable) is not None and id(variable) not in own:
                raise UserError(
                    f"the model changes {variable.path} as it trains, which an update of several "
                    "micro-batches cannot follow:\nleave that layer out; batch normalization and "
                    "dropout are supported."
                )
        return logits, _summed(scope.losses)

    def regularisation(self) -> list[tf.Tensor]:
        """Returns the gradient of the regularizers for each parameter; an update adds it once.

        This gradient does not depend on the examples, so it is not part of the gradient noise.
        """
        regularized = [v for v in self._model.trainable_variables if v.regularizer]
        with tf.GradientTape() as tape:
            total = _summed([_as_written(v.regularizer)(v) for v in regularized])
        return tape.gradient(total, self.parameters, unconnected_gradients=_ZERO)


def _as_written(function: Callable | None) -> Any:
    """Wraps the user's `function`, as Keras' fit does, so that AutoGraph does not convert it."""
    return function and tf.autograph.experimental.do_not_convert(function)


def _summed(losses: list[Any]) -> tf.Tensor:
    """Sums all elements of all tensors in `losses`, as Keras' fit does; returns float32 []."""
    return tf.add_n([tf.constant(0.0), *(tf.reduce_sum(tf.cast(x, tf.float32)) for x in losses)])
