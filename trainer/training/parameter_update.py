"""Applies an update: changes parameters, optimizer slots and moving statistics, once a batch."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from trainer.nn.optimizers import Optimizer, Update
from trainer.training.gradients import GradientFunction


class ParameterUpdate:
    """An optimizer and its slots, for the parameters and the batch norms of a gradient function.

    Attributes:
      slots: variables of the optimizer, [parameter][slot].
    """

    def __init__(
        self,
        gradient_function: GradientFunction,
        optimizer: Optimizer,
        *,
        weight_decay: float,
        factors: list[float],
    ) -> None:
        """Creates the slots; call this in the scope of the strategy.

        `factors` has a factor on the learning rate for each parameter.
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
        """Returns [‖gradients‖²], and also the squared norm in the optimizer's metric, if any.

        In the metric, the square of each element has a factor, which the current slots determine.
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

    def assign(
        self,
        strategy: tf.distribute.Strategy,
        gradients: Any,
        statistics: Any,
        learning_rate: tf.Tensor,
        momentum: tf.Tensor,
        shares: Any,
    ) -> None:
        """Updates parameters, slots and moving statistics, in the cross-replica context.

        Args:
          strategy: the strategy, as `merge_call` passes it.
          gradients: gradient of each parameter, regularizers included.
          statistics: for each batch norm, the sums of means and variances over the ghost
            batches, divided by B, the batch size.
          learning_rate: learning rate, before the factors of the parameters.
          momentum: m, the momentum.
          shares: for each batch norm, the weight of this update in its moving statistics.
        """

        def move(
            parameter: Any, gradient: tf.Tensor, slots: Any, constraint: Any, factor: float
        ) -> None:
            update = Update(parameter.read_value(), gradient, momentum, self._weight_decay)
            rate = learning_rate if factor == 1 else factor * learning_rate
            self._optimizer.move(parameter, slots, update, rate, constraint)

        function = self._gradient_function
        of_each = zip(gradients, self.slots, function.constraints, self._factors, strict=True)
        for parameter, args in zip(function.parameters, of_each, strict=True):
            strategy.extended.update(parameter, move, args=args, group=False)

        def average(moving: Any, total: tf.Tensor, size: int, weight: tf.Tensor) -> None:
            # `total` is the sum over an update's ghost batches, divided by the batch size. So
            # total · `size`, the ghost batch size, is the mean.
            moving.assign_add(weight * (total * size - moving))

        of_norms = zip(function.norms, statistics, shares, function.moving, strict=True)
        for layer, totals, share, moves in of_norms:
            variables = (layer.moving_mean, layer.moving_variance) if moves else ()
            for variable, total in zip(variables, totals, strict=moves):
                given: Any = (total, layer.ghost_batch_size, share)
                strategy.extended.update(variable.value, average, args=given, group=False)
