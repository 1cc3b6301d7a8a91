"""Computes one replica's part of an update: adds micro-batches to sums, then applies the sums.

    accumulate:  sums += gradients, statistics, loss, correct of a micro-batch
    apply:       means = all_reduce(sums) / B           # once per update
                 gradient = means.gradients + gradient of the regularizers, clipped by --clip_norm
                 parameters, slots = optimizer(gradient, ε, m)
                 moving statistics += weight · (means.statistics · G - moving statistics)
                 average += weight · (parameters and moving statistics - average)
                 sums = 0

B is the batch size, ε the learning rate and m the momentum. G is the size of a ghost batch, a group
of examples that share batch-norm statistics. A `weight` is the share of the update in a moving
average. XLA can compile `accumulate`, and the part of `apply` between the all-reduce and the
assignments.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from trainer.config.run_flags import NEWEST_ORDER
from trainer.nn import clipping, layer_groups
from trainer.nn.losses import MixedLabels, TrainingLoss
from trainer.nn.optimizers import OPTIMIZERS
from trainer.schedule.layout import divisors
from trainer.training import xla
from trainer.training.averaging import ModelAverage
from trainer.training.gradients import GradientFunction, GradientSums
from trainer.training.parameter_update import ParameterUpdate


class ReplicaStep:
    """Computations of a replica, and the variables that only these computations use.

    Attributes:
      parameters: variables that train.
      slots: variables of the optimizer, as a list of slots for each parameter.
      norms: batch norms whose moving statistics an update may change.
      metrics: number of metrics in which an update measures squared norms of gradients. It is 2 if
        the optimizer has its own metric in addition to the Euclidean metric, otherwise 1.
      average: average of the model's weights; None if the run does not average.
      clip_norm: largest norm of an update's gradient; None: gradients are not clipped.
      by_xla: whether XLA compiles the computations that are traced from now on; False at first.
    """

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        model: keras.Model,
        *,
        optimizer: str,
        weight_decay: float,
        clip_norm: float | None = None,
        loss: TrainingLoss,
        seed: int,
        order_version: int = NEWEST_ORDER,
        layer_decay: float = 1.0,
        ghost_batch_size: int = 1,
        lanes: int = 1,
        average: ModelAverage | None = None,
    ) -> None:
        """Creates slots and sums for `model`, which was built on `strategy`.

        The replica computes up to `lanes` equal parts of a micro-batch at the same time. The size
        of a part is a multiple of `ghost_batch_size` and of each batch norm's own ghost batch size.
        """
        self._strategy, self.average = strategy, average
        self._lanes, self.clip_norm = lanes, clip_norm
        self._gradient_function = GradientFunction(
            model, loss=loss, seed=seed, order_version=order_version
        )
        self.parameters = self._gradient_function.parameters
        self.norms = self._gradient_function.norms
        self._ghost = math.lcm(ghost_batch_size, *(norm.ghost_batch_size for norm in self.norms))
        shapes = [norm.moving_mean.shape for norm in self.norms]
        self.metrics = 1 if OPTIMIZERS[optimizer].metric is None else 2
        with strategy.scope():
            self._update = ParameterUpdate(
                self._gradient_function,
                OPTIMIZERS[optimizer],
                weight_decay=weight_decay,
                factors=layer_groups.rate_factors(model, layer_decay),
            )
            self.slots = self._update.slots
            self._sums = GradientSums(
                [_accumulator(p.shape) for p in self.parameters],
                [(_accumulator(shape), _accumulator(shape)) for shape in shapes],
                _accumulator([]),
                _accumulator([]),
            )
            # Σ ‖gradient sum of a micro-batch‖² over the micro-batches of one update. If the
            # optimizer has a metric, a second entry has the sum of squared norms in this metric.
            self._squares = [_accumulator([]) for _ in range(self.metrics)]
        self.by_xla = False

    @functools.cached_property
    def _compiled(self) -> tuple[Callable[..., Any], Callable[..., Any]]:
        """`_add` and `_new_values`, compiled by XLA once for each shape of micro-batches."""
        return xla.compiled(self._add), xla.compiled(self._new_values)

    def accumulate(
        self, images: tf.Tensor, labels: tf.Tensor | MixedLabels, position: tf.Tensor
    ) -> tf.Tensor:
        """Adds a micro-batch to this replica's sums, and returns the loss of its first part.

        The loss is ready only after all sums are updated, so a time measurement can wait for it.
        """
        add = self._compiled[0] if self.by_xla else self._add
        return add(images, labels, position)

    def _add(
        self, images: tf.Tensor, labels: tf.Tensor | MixedLabels, position: tf.Tensor
    ) -> tf.Tensor:
        ghosts = max(1, images.shape[0] // self._ghost)
        lanes = max(n for n in divisors(ghosts) if n <= self._lanes)
        size = images.shape[0] // lanes
        batch = [tf.split(values, lanes) for values in (images, *tf.nest.flatten(labels))]
        parts = []
        for lane, (pixels, *own) in enumerate(zip(*batch, strict=True)):
            of_lane = pixels, tf.nest.pack_sequence_as(labels, own), position + lane * size
            parts.append(self._gradient_function(*of_lane))
        micro_batch: Any = tf.nest.map_structure(lambda *values: tf.add_n(values), *parts)
        sums, values = tf.nest.flatten(self._sums), tf.nest.flatten(micro_batch)
        added = [total.assign_add(value) for total, value in zip(sums, values, strict=True)]
        squares = self._update.squared_norms(micro_batch.gradients)
        added += [sum_.assign_add(x) for sum_, x in zip(self._squares, squares, strict=True)]
        with tf.control_dependencies(added):
            return tf.identity(parts[0].loss)

    def apply(
        self,
        learning_rate: tf.Tensor,
        momentum: tf.Tensor,
        batch_size: tf.Tensor,
        statistics_weights: tf.Tensor,
    ) -> tf.Tensor:
        """Applies one update from the sums, then resets the sums.

        `statistics_weights`, float32, has the update's weight in the moving statistics of each
        batch norm. If the run averages the model, the last entry is the weight in the average.

        Returns:
          [loss, top1, gradient norm, *squares, *batch squared norms]. For each of the metrics,
          `squares` has Σ ‖gradient sum of a micro-batch‖² over the micro-batches. A batch squared
          norm is ‖mean gradient of the batch‖², without the regularizers.
        """
        totals = [total.read_value() for total in self.all_sums()]
        context = tf.distribute.get_replica_context()
        if self._strategy.num_replicas_in_sync > 1:
            totals = context.all_reduce(tf.distribute.ReduceOp.SUM, totals)
        given = totals, learning_rate, momentum, batch_size, statistics_weights
        record, values = self._update_values(*given)
        context.merge_call(self._assign, args=(values,))
        # Do not add a control dependency on the totals here. tf.function resets the sums after the
        # reads anyway, because the reset and the reads use the same variables. With such a control
        # dependency, Grappler removed tf.function's own dependency as redundant. Then, Grappler
        # pruned totals that a replica does not use. So the losses and top1 of some replicas were
        # sometimes missing.
        self.zero()
        return record

    def _update_values(self, *given: Any) -> tuple[tf.Tensor, list[tf.Tensor]]:
        return (self._compiled[1] if self.by_xla else self._new_values)(*given)

    def _new_values(
        self,
        totals: list[tf.Tensor],
        learning_rate: tf.Tensor,
        momentum: tf.Tensor,
        batch_size: tf.Tensor,
        statistics_weights: tf.Tensor,
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Returns the result of `apply`, and the new values of the variables for `_assign`.

        `totals` are the sums over all replicas.
        """
        totals, squares = totals[: -self.metrics], totals[-self.metrics :]
        means = [total / batch_size for total in totals]
        gradients, statistics, loss, top1 = tf.nest.pack_sequence_as(self._sums, means)
        batch_sq_norms = self._update.squared_norms(gradients)
        regularisation = self._gradient_function.regularisation()
        gradients = [g + r for g, r in zip(gradients, regularisation, strict=True)]
        norm = tf.linalg.global_norm(gradients)
        if self.clip_norm is not None:
            gradients = clipping.clip(gradients, norm, self.clip_norm)
        shares = tf.unstack(statistics_weights)
        of_norms = shares[: len(self.norms)]
        values = self._update.values(gradients, statistics, learning_rate, momentum, of_norms)
        if self.average:
            updated = zip(self._update.variables(), values, strict=True)
            values += self.average.values({id(v): value for v, value in updated}, shares[-1])
        return tf.stack([loss, top1, norm, *squares, *batch_sq_norms]), values

    def probe(
        self, images: tf.Tensor, labels: tf.Tensor | MixedLabels, position: tf.Tensor
    ) -> tf.Tensor:
        """Computes an update of one micro-batch without applying it; changes only the sums.

        XLA thereby compiles all computations that training needs for micro-batches of this shape.
        """
        loss = self.accumulate(images, labels, position)
        zeros, zero = [tf.zeros(total.shape) for total in self.all_sums()], tf.constant(0.0)
        weights = tf.zeros([len(self.norms) + (self.average is not None)])
        record, values = self._update_values(zeros, zero, zero, zero + 1, weights)
        return loss + record[0] + tf.add_n([tf.reduce_sum(value) for value in values])

    def _assign(self, strategy: tf.distribute.Strategy, values: list[Any]) -> None:
        """Assigns the values of `_new_values`, in the cross-replica context."""
        averages = self.average.moving() if self.average else []
        variables = [*self._update.variables(), *(average for _, average in averages)]
        for variable, value in zip(variables, values, strict=True):
            strategy.extended.update(variable, _assign, args=(value,), group=False)

    def all_sums(self) -> list[tf.Variable]:
        """Returns the variables to which micro-batches are added."""
        return [*tf.nest.flatten(self._sums), *self._squares]

    def zero(self) -> None:
        """Sets the sums to 0; each update also does this at its end."""
        for total in self.all_sums():
            total.assign(tf.zeros_like(total))


def _assign(variable: tf.Variable, value: tf.Tensor) -> None:
    variable.assign(value)


def _accumulator(shape: Any) -> tf.Variable:
    """Returns a variable in which each replica keeps its own sum until the all-reduce."""
    return tf.Variable(
        tf.zeros(shape),
        trainable=False,
        synchronization=tf.VariableSynchronization.ON_READ,
        aggregation=tf.VariableAggregation.SUM,
    )
