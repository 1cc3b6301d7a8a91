"""Computes the new parameters, optimizer slots and moving statistics of one update."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from trainer.nn.ghost_batch_norm import GhostBatchNormalization
from trainer.nn.optimizers import Optimizer, Update
from trainer.training.gradients import GradientFunction


class ParameterUpdate:
    """Optimizer with its slots, for the parameters and batch norms of a GradientFunction.

    Attributes:
      slots: variables of the optimizer, as a list of slots for each parameter.
    """

    def __init__(
        self,
        gradient_function: GradientFunction,
        optimizer: Optimizer,
        *,
        weight_decay: float,
        factors: list[float],
    ) -> None:
        """Creates the slots; must be called in the scope of the strategy.

        `factors` has, for each parameter, the factor on the learning rate.
        """
        self._gradient_function = gradient_function
        self._optimizer = optimizer
        self._weight_decay = weight_decay
        self._factors = factors
        self.slots = [
            [tf.Variable(slot, trainable=False) for slot in optimizer.start(parameter)]
            for parameter in gradient_function.parameters
        ]

    def squared_norms(self, gradients: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Returns one or two squared norms of all gradients together, float32 [] each.

        The first norm is the squared Euclidean norm. The second norm exists only if the optimizer
        has a metric. This metric multiplies each squared element of a gradient by a factor that
        depends on the current slots.
        """
        plain = tf.add_n([tf.reduce_sum(tf.square(gradient)) for gradient in gradients])
        metric = self._optimizer.metric
        if metric is None:
            return [plain]
        scaled = [
            tf.reduce_sum(metric(tuple(slot.read_value() for slot in slots)) * tf.square(gradient))
            for gradient, slots in zip(gradients, self.slots, strict=True)
        ]
        return [plain, tf.add_n(scaled)]

    def variables(self) -> list[Any]:
        """Returns the variables that an update changes: parameters, slots and moving statistics."""
        function = self._gradient_function
        norms = zip(function.norms, function.moving, strict=True)
        moving = [v for norm, moves in norms if moves for v in _statistics(norm)]
        return [*function.parameters, *tf.nest.flatten(self.slots), *moving]

    def values(
        self,
        gradients: Sequence[tf.Tensor],
        statistics: Sequence[tuple[tf.Tensor, tf.Tensor]],
        learning_rate: tf.Tensor,
        momentum: tf.Tensor,
        shares: Sequence[tf.Tensor],
    ) -> list[tf.Tensor]:
        """Returns the values of `variables` after an update; call it in a replica's context.

        Args:
          gradients: gradient of each parameter, regularizers included.
          statistics: for each batch norm, the sum of the means of its ghost batches (groups of
            examples that share statistics), and the sum of their variances. Both sums are divided
            by the batch size.
          learning_rate: learning rate, before it is multiplied by the factor of a parameter.
          momentum: m, the momentum.
          shares: for each batch norm, the weight of this update in the norm's moving statistics.
        """
        function = self._gradient_function
        parameters: list[tf.Tensor] = []
        slots: list[tf.Tensor] = []
        moving: list[tf.Tensor] = []
        of_each = zip(gradients, self.slots, function.constraints, self._factors, strict=True)
        for parameter, (gradient, own, constraint, factor) in zip(
            function.parameters, of_each, strict=True
        ):
            update = Update(parameter.read_value(), gradient, momentum, self._weight_decay)
            rate = learning_rate if factor == 1 else factor * learning_rate
            before = tuple(slot.read_value() for slot in own)
            value, after = self._optimizer.moved(update, before, rate, constraint)
            parameters.append(value)
            slots += after
        of_norms = zip(function.norms, statistics, shares, function.moving, strict=True)
        for norm, totals, share, moves in of_norms:
            for variable, total in zip(_statistics(norm), totals, strict=True) if moves else ():
                # `total` is the sum over the ghost batches, divided by the batch size B. There are
                # B / G ghost batches of G examples, so total · G is the mean over ghost batches.
                before = variable.read_value()
                moving.append(before + share * (total * norm.ghost_batch_size - before))
        return [*parameters, *slots, *moving]


def _statistics(norm: GhostBatchNormalization) -> tuple[Any, Any]:
    return norm.moving_mean.value, norm.moving_variance.value
