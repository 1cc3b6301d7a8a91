"""Device code: one call accumulates micro-batches and applies the updates of a whole stretch.

    for each update of the stretch:            # at position p, with B = R · b · k
        for j in range(k):                     # accumulation
            for each replica r, in parallel:   # R replicas
                batch = examples [p + (j R + r) b, p + (j R + r + 1) b)
                sums[r] += gradients, statistics, loss, correct of batch
        means = all_reduce(sums) / B           # once an update
        gradient = means.gradients + gradient of the regularizers, clipped if asked
        parameters, slots = optimizer(gradient, ε, m)
        moving statistics += weight · (means.statistics · G - moving statistics)
        average += weight · (parameters and moving statistics - average)

Here, B is the batch size, b the micro-batch size, ε the learning rate, m the momentum and G the
ghost batch size. B, k, ε and m are tensors, so a growing batch changes numbers and not the graph.
TensorFlow traces each micro-batch and image size once.
"""

import math
import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainer.config.run_flags import NEWEST_ORDER
from trainer.distributed.strategy import next_per_replica
from trainer.nn import clipping, layer_groups, moving_statistics
from trainer.nn.losses import MixedLabels, TrainingLoss
from trainer.nn.optimizers import OPTIMIZERS
from trainer.nn.user_code import unwrap_user_errors
from trainer.schedule.layout import divisors
from trainer.schedule.stretch import Stretch
from trainer.training.averaging import ModelAverage
from trainer.training.gradients import GradientFunction, GradientSums
from trainer.training.graph_loop import repeat
from trainer.training.parameter_update import ParameterUpdate
from trainer.training.update_metrics import UpdateMetrics


class TrainingStep:
    """A model, its optimizer's slots and the compiled stretches, on one strategy.

    Attributes:
      strategy: distributes the training over the replicas.
      model: the model to train.
      parameters: variables that train.
      slots: variables of the optimizer, [parameter][slot].
      starts: position at which each batch norm first trained, by index. A resume replaces these
        values by the checkpoint's.
      timed: whether the input wait is measured.
      average: average of the model's weights, which updates move; None if the run has none.
      traces: number of times that TensorFlow has traced a stretch.
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
        timed: bool = True,
        average: ModelAverage | None = None,
    ) -> None:
        """Creates slots and sums for `model`, which was built on `strategy`.

        Each replica computes up to `lanes` equal parts of a micro-batch at the same time. Each part
        has whole ghost batches of `ghost_batch_size` and of each batch norm. `timed` must be False
        if op determinism is enabled, because a deterministic graph cannot read the clock. It must
        be False on TPUs too, because their work is enqueued ahead of time.
        `clip_norm` is the largest norm of an update's gradient; None: gradients are not clipped.
        """
        self.strategy, self.model, self.timed = strategy, model, timed
        self.traces, self._lanes, self.average = 0, lanes, average
        self._clip_norm = clip_norm
        self._gradient_function = GradientFunction(
            model, loss=loss, seed=seed, order_version=order_version
        )
        self.parameters = self._gradient_function.parameters
        self._norms = self._gradient_function.norms
        self._ghost = math.lcm(ghost_batch_size, *(norm.ghost_batch_size for norm in self._norms))
        self._trained = moving_statistics.trained_norms(model)
        self.starts = moving_statistics.starts(self._trained)
        # Compiled stretches by micro-batch size and image size.
        self._stretches: dict[tuple[int, int | None], Any] = {}
        shapes = [norm.moving_mean.shape for norm in self._norms]
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
            # Σ ‖sum of a micro-batch's gradients‖² over the micro-batches of one update, and the
            # same in the optimizer's metric if it has one.
            metrics = 1 if OPTIMIZERS[optimizer].metric is None else 2
            self._squares = [_accumulator([]) for _ in range(metrics)]

    def run(self, iterator: Any, stretch: Stretch) -> UpdateMetrics:
        """Trains the updates of `stretch` with the next micro-batches of `iterator`.

        `iterator` iterates over a dataset of micro-batches for the local replicas in turn: (images
        uint8 [b, h, w, c], labels [b] or MixedLabels, position of the first example []).
        """
        micro_batch_size = stretch.layout.micro_batch_size
        shape = micro_batch_size, stretch.image_size
        if shape not in self._stretches:
            self._stretches[shape] = self._compile(iterator)
        size = stretch.batch_size
        ends = range(stretch.position + size, stretch.end + size, size)
        weights = moving_statistics.update_weights(self._trained, self.starts, size, ends)
        if self.average:
            weights = np.column_stack([weights, self.average.update_weights(size, ends)])
        arguments = (
            iterator,
            tf.constant([s.learning_rate for s in stretch.settings], tf.float32),
            tf.constant([s.momentum for s in stretch.settings], tf.float32),
            tf.constant(stretch.layout.accumulation, tf.int32),
            tf.constant(size, tf.float32),
            tf.constant(weights, tf.float32),
        )
        start = time.perf_counter()
        records, wait = self._stretches[shape](*arguments)
        loss, top1, norm, *norms = records.numpy().T  # Waits for the device.
        # Sums of ‖b · mean gradient‖² over R·k micro-batches come first, and R·k · b² = B · b.
        count = len(self._squares)
        parts = [squares / (size * micro_batch_size) for squares in norms[:count]]
        plain, *in_metric = zip(parts, norms[count:], strict=True)
        seconds = time.perf_counter() - start
        # The graph reads the wall clock, which the system may adjust during the stretch. So the
        # wait is limited to the stretch's duration.
        wait = min(float(wait.numpy()), seconds) if self.timed else None
        clips = None if self._clip_norm is None else clipping.clipped(norm, self._clip_norm)
        return UpdateMetrics(loss, top1, norm, *plain, seconds, wait, clips, *in_metric)

    def _compile(self, iterator: Any) -> Any:
        vector, scalar = tf.TensorSpec([None], tf.float32), tf.TensorSpec([], tf.float32)
        count = tf.TensorSpec([], tf.int32)
        columns = len(self._norms) + (self.average is not None)
        weights = tf.TensorSpec([None, columns], tf.float32)
        signature = [tf.type_spec_from_value(iterator), vector, vector, count, scalar, weights]
        function = tf.function(self._stretch, input_signature=signature, autograph=False)
        with unwrap_user_errors():
            function.get_concrete_function()  # Traces now, so that `run` times only the device.
        return function

    def _stretch(
        self,
        iterator: Any,
        learning_rates: tf.Tensor,
        momenta: tf.Tensor,
        accumulation: tf.Tensor,
        batch_size: tf.Tensor,
        statistics_weights: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the results of `apply` for n updates, [n, 5 or 7], and the input wait in s."""
        self.traces += 1
        updates = tf.size(learning_rates)
        columns = 3 + 2 * len(self._squares)
        records = tf.TensorArray(tf.float32, updates, element_shape=[columns])

        def accumulate(_: tf.Tensor, wait: tf.Tensor, done: tf.Tensor) -> tuple[Any, ...]:
            batch = next_per_replica(self.strategy, iterator)
            ready = self._clock(batch)
            # Without this dependency, convolutions may begin before the clock is read.
            with tf.control_dependencies([ready] if self.timed else []):
                losses = self.strategy.run(self.accumulate, batch)
            return wait + tf.maximum(ready - done, 0), self._clock(losses)

        def update(
            i: tf.Tensor, records: tf.TensorArray, wait: tf.Tensor, done: tf.Tensor
        ) -> tuple[Any, ...]:
            wait, _ = repeat(accumulation, accumulate, wait, done)
            used = learning_rates[i], momenta[i], batch_size, statistics_weights[i]
            results = self.strategy.run(self.apply, used)
            record, *_ = self.strategy.experimental_local_results(results)
            return records.write(i, record), wait, self._clock(results)

        zero = tf.constant(0.0, tf.float64)
        records, wait, _ = repeat(updates, update, records, zero, self._clock([]))
        return records.stack(), wait

    def _clock(self, after: Any) -> tf.Tensor:
        """Returns the time once all local replicas have computed `after`, or 0 if not timed."""
        if not self.timed:
            return tf.constant(0.0, tf.float64)
        results = self.strategy.experimental_local_results(after)
        with tf.control_dependencies(tf.nest.flatten(results)):
            return tf.timestamp()

    def accumulate(
        self, images: tf.Tensor, labels: tf.Tensor | MixedLabels, position: tf.Tensor
    ) -> tf.Tensor:
        """Adds a micro-batch to this replica's sums, and returns the first lane's loss.

        The loss depends on the updates of all sums, so `_clock` can wait for it.
        """
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

        `statistics_weights`, float32, has one weight for each batch norm, and then one for the
        average if there is one. Returns [loss, top1, gradient norm, *sums of micro-batch squared
        norms, *batch squared norms].
        """
        totals = [total.read_value() for total in (*tf.nest.flatten(self._sums), *self._squares)]
        context = tf.distribute.get_replica_context()
        if self.strategy.num_replicas_in_sync > 1:
            totals = context.all_reduce(tf.distribute.ReduceOp.SUM, totals)
        count = len(self._squares)
        totals, squares = totals[:-count], totals[-count:]
        means = [total / batch_size for total in totals]
        gradients, statistics, loss, top1 = tf.nest.pack_sequence_as(self._sums, means)
        batch_sq_norms = self._update.squared_norms(gradients)
        regularisation = self._gradient_function.regularisation()
        gradients = [g + r for g, r in zip(gradients, regularisation, strict=True)]
        norm = tf.linalg.global_norm(gradients)
        if self._clip_norm is not None:
            gradients = clipping.clip(gradients, norm, self._clip_norm)
        shares = tf.unstack(statistics_weights)
        arguments = gradients, statistics, learning_rate, momentum, shares[: len(self._norms)]
        context.merge_call(self._update.assign, args=arguments)
        if self.average:
            context.merge_call(self.average.move, args=(shares[-1],))
        # Do not add a control dependency on the totals here. tf.function resets the sums after the
        # reads anyway, because both use the same variables. With such a dependency, Grappler
        # removed that order as redundant, and then pruned totals that a replica does not use. At
        # times, losses and top1 of some replicas were missing.
        self.zero()
        return tf.stack([loss, top1, norm, *squares, *batch_sq_norms])

    def finite(self) -> bool:
        """Returns whether all parameters, slots, moving statistics and averages are finite.

        These values may overflow in an update whose loss and gradient are finite.
        """
        moving = [s.value for norm in self._norms for s in (norm.moving_mean, norm.moving_variance)]
        averages = self.average.variables if self.average else []
        averages = [average for average in averages if average.dtype.is_floating]
        variables = [*self.parameters, *tf.nest.flatten(self.slots), *moving, *averages]
        return all(tf.reduce_all(tf.math.is_finite(v)) for v in variables)

    def zero(self) -> None:
        """Sets the sums to 0, as each update does at its end."""
        for total in (*tf.nest.flatten(self._sums), *self._squares):
            total.assign(tf.zeros_like(total))


def _accumulator(shape: Any) -> tf.Variable:
    """Returns a variable in which each replica keeps a sum of its own until the all-reduce."""
    return tf.Variable(
        tf.zeros(shape),
        trainable=False,
        synchronization=tf.VariableSynchronization.ON_READ,
        aggregation=tf.VariableAggregation.SUM,
    )
