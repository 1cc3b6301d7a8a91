"""Code that the devices run: one call computes all updates of a stretch, a series of updates.

    for each update of the stretch:            # at position p, with B = R · b · k
        for j in range(k):                     # accumulation
            for each replica r, in parallel:   # R replicas
                accumulate(examples [p + (j R + r) b, p + (j R + r + 1) b))
        for each replica, in parallel:
            apply(ε, m)                        # one all-reduce

Here, p is the number of examples consumed before the update, B the batch size, b the micro-batch
size, ε the learning rate and m the momentum. Each replica sums k micro-batches for an update.
replica_step.py defines `accumulate` and `apply`. B, k, ε and m are tensors, so a growing batch does
not change the graph. TensorFlow traces the graph once for each micro-batch size and image size.
"""

import functools
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainer.distributed import hosts
from trainer.distributed.replica_batches import ReplicaBatches
from trainer.nn import clipping, moving_statistics
from trainer.nn.user_code import unwrap_user_errors
from trainer.schedule.stretch import Stretch
from trainer.system.output import log
from trainer.training import xla
from trainer.training.graph_loop import repeat
from trainer.training.replica_step import ReplicaStep
from trainer.training.update_metrics import UpdateMetrics


class TrainingStep:
    """A model, its optimizer's slots and the compiled functions for stretches, on one strategy.

    Attributes:
      strategy: distributes the training over the replicas.
      model: the model to train.
      parameters: variables that train.
      slots: variables of the optimizer, as a list of slots for each parameter.
      starts: position at which each batch norm first trained, by index. When a run resumes, the
        checkpoint's values replace these positions.
      timed: whether to measure the time in which the device waits for examples.
      average: average of the model's weights over the updates; None if the run does not average.
      ahead: whether micro-batches are taken ahead of their computation.
      traces: number of times that TensorFlow has traced a stretch.
    """

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        model: keras.Model,
        *,
        timed: bool = True,
        by_xla: bool = False,
        ahead: bool = False,
        agree: Callable[[bool], bool] = lambda failed: failed,
        **options: Any,
    ) -> None:
        """Creates slots and sums for `model`, which was built on `strategy`.

        Args:
          strategy: distributes the training over the replicas.
          model: the model to train.
          timed: whether to measure the time in which the device waits for examples. It must be
            False if op determinism is enabled, because a deterministic graph cannot read the clock.
            It must also be False on GPUs and TPUs. There, the clock would wait for enqueued work.
          by_xla: whether XLA compiles the computations of a replica. If so, ghost batch norms must
            have the `reshaped` kernel. On TPUs, XLA always compiles the computations.
          ahead: whether to take the next micro-batch before the computation of the present one, so
            that its copy to the device may overlap the computation. This is for GPUs. It excludes
            `timed` and several hosts.
          agree: function (failed) → whether `failed` is true in any of the run's processes. All
            processes call it before the first update with a new micro-batch size or image size. So
            either all processes use XLA, or none does.
          **options: further arguments of ReplicaStep.
        """
        self.strategy, self.model, self.timed = strategy, model, timed
        self.traces, self._by_xla, self._agree = 0, by_xla, agree
        self.ahead = ahead
        self.replica = ReplicaStep(strategy, model, **options)
        self.parameters, self.slots = self.replica.parameters, self.replica.slots
        self.average = self.replica.average
        self._trained = moving_statistics.trained_norms(model)
        self.starts = moving_statistics.starts(self._trained)
        # Compiled stretches by micro-batch size and image size.
        self._stretches: dict[tuple[int, int | None], Any] = {}

    def run(self, iterator: Any, stretch: Stretch) -> UpdateMetrics:
        """Trains the updates of `stretch` with the next micro-batches of `iterator`.

        `iterator` yields micro-batches for the replicas of this process in turn: (images uint8
        [b, h, w, c], labels [b] or MixedLabels, position of the first example []). If this program
        drives several hosts, `iterator` is a tuple with an iterator for each host.
        """
        micro_batch_size = stretch.layout.micro_batch_size
        shape = micro_batch_size, stretch.image_size
        if shape not in self._stretches:
            prepared = self.prepare(iterator)
            if self._by_xla and self._agree(not prepared):
                if prepared:
                    log("another process cannot compile this model by XLA, so no process uses XLA")
                self.replica.by_xla = False
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
        with hosts.on_first(self.strategy):
            records, wait = self._stretches[shape](*arguments)
        loss, top1, norm, *norms = records.numpy().T  # Waits for the device.
        # The first `count` rows are sums of ‖b · mean gradient‖² over the R·k micro-batches. To get
        # the mean of ‖mean gradient‖², they are divided by R·k · b² = B · b.
        count = self.replica.metrics
        parts = [squares / (size * micro_batch_size) for squares in norms[:count]]
        plain, *in_metric = zip(parts, norms[count:], strict=True)
        seconds = time.perf_counter() - start
        # The graph reads the wall clock, which the system may adjust during the stretch. So `wait`
        # is limited to the duration of the stretch.
        wait = min(float(wait.numpy()), seconds) if self.timed else None
        limit = self.replica.clip_norm
        clips = None if limit is None else clipping.clipped(norm, limit)
        return UpdateMetrics(loss, top1, norm, *plain, seconds, wait, clips, *in_metric)

    def prepare(self, iterator: Any) -> bool:
        """Compiles a replica's computations by XLA for micro-batches of `iterator`, if `by_xla`.

        If XLA cannot compile them, logs why and returns False. They are then computed without XLA.

        Raises:
          UserError: if the model's own code fails.
          tf.errors.ResourceExhaustedError: if a micro-batch of this size does not fit in memory.
        """
        if not self._by_xla:
            return True
        images, *_ = iterator.element_spec
        self.replica.by_xla = True
        with unwrap_user_errors():
            problem = xla.problem(self.strategy, self.replica.probe, iterator.element_spec)
        if problem:
            what = f"XLA cannot compile this model for micro-batches of {images.shape[0]} examples"
            log(f"{what}, so they are computed without XLA: {problem}")
            self.replica.by_xla = False
        self.zero()
        return not problem

    @functools.cached_property
    def _zero(self) -> Callable[[], None]:
        # TensorFlow names a TPU's computation after its function, so a lambda cannot be used here.
        @tf.function(autograph=False)
        def zero() -> None:
            self.strategy.run(self.replica.zero)

        return zero

    def zero(self) -> None:
        """Sets the sums of all replicas to 0."""
        with hosts.on_first(self.strategy):
            self._zero()

    def _compile(self, iterator: Any) -> Any:
        vector, scalar = tf.TensorSpec([None], tf.float32), tf.TensorSpec([], tf.float32)
        count = tf.TensorSpec([], tf.int32)
        columns = len(self.replica.norms) + (self.average is not None)
        weights = tf.TensorSpec([None, columns], tf.float32)
        taken = tf.nest.map_structure(tf.type_spec_from_value, iterator)
        signature = [taken, vector, vector, count, scalar, weights]
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
        """Computes n updates; returns `apply`'s results, [n, 5 or 7], and the input wait in s."""
        self.traces += 1
        updates = tf.size(learning_rates)
        columns = 3 + 2 * self.replica.metrics
        records = tf.TensorArray(tf.float32, updates, element_shape=[columns])

        batches = ReplicaBatches(self.strategy, iterator, ahead=self.ahead)

        def accumulate(
            _: tf.Tensor, wait: tf.Tensor, done: tf.Tensor, *carried: tf.Tensor
        ) -> tuple[Any, ...]:
            batch, following = batches.take(carried)
            ready = self._clock(batch)
            # Without this dependency, the computation may begin before the clock is read.
            with tf.control_dependencies([ready] if self.timed else []):
                losses = self.strategy.run(self.replica.accumulate, batch)
            return wait + tf.maximum(ready - done, 0), self._clock(losses), *following

        def update(
            i: tf.Tensor,
            records: tf.TensorArray,
            wait: tf.Tensor,
            done: tf.Tensor,
            *carried: tf.Tensor,
        ) -> tuple[Any, ...]:
            wait, _, *following = repeat(accumulation, accumulate, wait, done, *carried)
            used = learning_rates[i], momenta[i], batch_size, statistics_weights[i]
            results = self.strategy.run(self.replica.apply, used)
            record, *_ = self.strategy.experimental_local_results(results)
            return records.write(i, record), wait, self._clock(results), *following

        zero, carried = tf.constant(0.0, tf.float64), batches.carried(updates * accumulation)
        records, wait, *_ = repeat(updates, update, records, zero, self._clock([]), *carried)
        return records.stack(), wait

    def _clock(self, after: Any) -> tf.Tensor:
        """Returns the time when all local replicas have computed `after`; 0 if not `timed`."""
        if not self.timed:
            return tf.constant(0.0, tf.float64)
        results = self.strategy.experimental_local_results(after)
        with tf.control_dependencies(tf.nest.flatten(results)):
            return tf.timestamp()

    def variable_bytes(self) -> int:
        """Returns the bytes of one replica's variables: weights, slots, sums and averages."""
        weights = [weight.value for weight in self.model.weights]
        averages = self.average.variables if self.average else []
        own = [*tf.nest.flatten(self.slots), *self.replica.all_sums()]
        found = [*weights, *own, *averages]
        return sum(each.shape.num_elements() * each.dtype.size for each in found)

    def finite(self) -> bool:
        """Returns whether all parameters, slots, moving statistics and averages are finite.

        An update may make these values overflow, even if its loss and its gradient are finite.
        """
        norms = self.replica.norms
        moving = [s.value for norm in norms for s in (norm.moving_mean, norm.moving_variance)]
        averages = self.average.variables if self.average else []
        averages = [average for average in averages if average.dtype.is_floating]
        variables = [*self.parameters, *tf.nest.flatten(self.slots), *moving, *averages]
        return all(tf.reduce_all(tf.math.is_finite(v)) for v in variables)
