"""Ghost batch normalization: each group of G consecutive examples has its own statistics.

Such a group is called a ghost batch. This is algorithm 1 of Hoffer, Hubara & Soudry 2017, "Train
longer, generalize better". If G divides the size of a micro-batch, the result depends on G, but not
on how replicas and micro-batches divide a batch.

The layer has two implementations, called kernels, which give the same numbers up to rounding:

- `fused` calls FusedBatchNormV3 for each ghost batch. It is the fastest kernel on CPUs without XLA.
  There, the op takes two passes over the data, and the relative error of the variance is under 1e-5
  at any mean. Do not use `fused` under XLA, where the op takes a single pass and does not subtract
  a shift. Under XLA, the relative error is 1e-1 if the mean is 100 standard deviations from 0.
- `reshaped` reshapes b examples with m pixels of c channels to [b/G, G, m, c]. It takes a single
  pass, and subtracts a shift k, the moving mean, which is constant during an update. Each value x
  gives d = x − k. So the mean of x is k + E[d], and the variance is E[d²] − E[d]². The backward
  pass is in closed form.
  Under XLA and on TPUs, `reshaped` takes almost no additional time. The formula is exact for any k,
  but float32 loses digits if the mean is far from k. Measured with up to 112×112 pixels, with and
  without XLA, the relative error of the variance is under 1e-4 if the mean is 10 standard
  deviations from k. At 100 standard deviations, the error is 6e-3. The mean may be this far from k
  early in a run, since k starts at 0.

All variances are biased, as in Keras: the sum of n squared deviations is divided by n.
"""

import contextlib
import math
import threading
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, get_args

import keras
import tensorflow as tf

from trainer.errors import UserError

Kernel = Literal["fused", "reshaped"]


class Statistics(NamedTuple):
    """Statistics of one call of a layer; `collect_statistics` collects them.

    The sums are over the ghost batches of the call, float32 [c]. They are None if the layer
    computes as in inference, because it is frozen or is called with training=False.
    """

    layer: "GhostBatchNormalization"
    mean_sum: tf.Tensor | None
    variance_sum: tf.Tensor | None


class _Collecting(threading.local):
    """Holds one list per thread for `collect_statistics`; each replica has its own thread."""

    collected: list[Statistics] | None = None


_collecting = _Collecting()


@contextlib.contextmanager
def collect_statistics() -> Iterator[list[Statistics]]:
    """Yields a list; ghost batch norms that are called in this thread append Statistics to it.

    In the scope, these layers do not update their moving statistics. A layer that is called twice
    appends twice. The tensors in the list belong to the graph that calls the layer. So open the
    scope, and use the list, in the function that calls the model.
    """
    outer = _collecting.collected
    _collecting.collected = []
    try:
        yield _collecting.collected
    finally:
        _collecting.collected = outer


def update_moving_statistic(
    moving: tf.Tensor, mean: tf.Tensor, decay: float, ghost_batches: tf.Tensor | int
) -> tf.Tensor:
    """Returns a moving statistic after n more ghost batches: dⁿ · moving + (1 − dⁿ) · mean.

    `moving` and `mean` are float32 [c]; `mean` is the mean over the n ghost batches. `decay`, in
    [0, 1], is d, the decay per ghost batch.
    """
    log_decay = math.log(decay) if decay > 0 else -math.inf
    # A subtraction 1 − dⁿ in float32 would lose two decimal digits, for example at d = 0.99, n = 1.
    weight = -tf.math.expm1(tf.cast(ghost_batches, tf.float32) * log_decay)
    return moving + weight * (mean - moving)


def normalize_fused(
    x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, *, ghost_batch_size: int, epsilon: float
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Normalises x, [b, ..., c], by ghost batches, with gamma and beta, float32 [c].

    Returns the output, and the means and biased variances of the ghost batches, float32 [b/G, c].
    The output has x's shape and dtype (float32, bfloat16 or float16). Gradients flow through the
    output, but not through the means and variances.
    """
    b, c = x.shape[0], x.shape[-1]
    ghosts, empty = tf.reshape(x, [b, -1, 1, c]), tf.zeros([0])  # ghosts: [b, m, 1, c]
    outputs, means, variances = [], [], []
    for ghost in tf.split(ghosts, b // ghost_batch_size) if b > ghost_batch_size else [ghosts]:
        # This uses the raw op, because tf.nn.fused_batch_norm raises epsilon to cuDNN's minimum.
        fused = tf.raw_ops.FusedBatchNormV3(
            x=ghost, scale=gamma, offset=beta, mean=empty, variance=empty, epsilon=epsilon
        )
        outputs.append(fused.y)
        means.append(fused.batch_mean)
        variances.append(fused.batch_variance)
    n = tf.cast(ghost_batch_size * tf.shape(ghosts)[1], tf.float32)  # G·m values
    y = tf.concat(outputs, axis=0) if len(outputs) > 1 else outputs[0]
    # The op returns the unbiased variance, which is n/(n − 1) times the biased variance.
    biased = tf.stack(variances) * ((n - 1) / n)
    y = tf.reshape(y, tf.shape(x))
    return y, tf.stop_gradient(tf.stack(means)), tf.stop_gradient(biased)


def normalize_reshaped(
    x: tf.Tensor,
    gamma: tf.Tensor,
    beta: tf.Tensor,
    shift: tf.Tensor,
    *,
    ghost_batch_size: int,
    epsilon: float,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns the same as `normalize_fused`; `shift`, float32 [c], is k, the moving mean."""
    b, c = x.shape[0], x.shape[-1]

    @tf.custom_gradient
    def normalize(x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) -> Any:
        d = tf.cast(x, tf.float32) - shift  # [b/G, G, m, c]
        d_mean = _mean(d)  # [b/G, 1, 1, c]
        variance = tf.maximum(_mean(tf.square(d)) - tf.square(d_mean), 0.0)
        inv = tf.math.rsqrt(variance + epsilon)
        y = (d - d_mean) * (gamma * inv) + beta
        mean = d_mean + shift

        def gradient(
            dy: tf.Tensor, _dmean: tf.Tensor, _dvariance: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            # The forward pass keeps only gamma, x (in its own dtype), mean and inv.
            n = tf.cast(ghost_batch_size * tf.shape(x)[2], tf.float32)  # G·m
            dy = tf.cast(dy, tf.float32)
            centered = tf.cast(x, tf.float32) - mean
            s = tf.reduce_sum(dy, axis=[1, 2], keepdims=True)  # [b/G, 1, 1, c]
            t = tf.reduce_sum(dy * centered, axis=[1, 2], keepdims=True)
            dx = gamma * inv * (dy - s / n - tf.square(inv) * centered * (t / n))
            dgamma = tf.reduce_sum(t * inv, axis=[0, 1, 2])
            return tf.cast(dx, x.dtype), dgamma, tf.reduce_sum(s, axis=[0, 1, 2])

        return (tf.cast(y, x.dtype), mean[:, 0, 0], variance[:, 0, 0]), gradient

    ghosts = tf.reshape(x, [b // ghost_batch_size, ghost_batch_size, -1, c])
    y, mean, variance = normalize(ghosts, gamma, beta)
    return tf.reshape(y, tf.shape(x)), tf.stop_gradient(mean), tf.stop_gradient(variance)


def _mean(x: tf.Tensor) -> tf.Tensor:
    """Returns the mean of x [b/G, G, m, c] over G and m: first over m, then over G.

    A single float32 sum would lose a decimal digit. For example, take 32 × 28 × 28 values with a
    mean 10 standard deviations from the shift. With a single sum, the relative error of the
    variance is 3e-4; with two sums, it is 3e-5.
    """
    over_pixels = tf.reduce_mean(x, axis=2, keepdims=True)
    return tf.reduce_mean(over_pixels, axis=1, keepdims=True)


@keras.saving.register_keras_serializable(package="crescendo")
class GhostBatchNormalization(keras.layers.BatchNormalization):
    """Keras' BatchNormalization with statistics over ghost batches of G examples.

    Weights and TensorFlow checkpoints are as in keras.layers.BatchNormalization. A Keras file also
    names the class of each layer. So if a file has plain batch norms, load it as a plain model, and
    then call `ghostify`. The input is [b, ..., c]. In training, b must be static, and G must divide
    b. Statistics are float32 at every compute dtype. Outside the scope of `collect_statistics`, a
    training call updates the moving statistics by `update_moving_statistic` with n = b/G.

    Args:
        ghost_batch_size: G, the number of examples in a ghost batch.
        kernel: "fused" or "reshaped", as described at the top of this module.
        **kwargs: arguments of Keras' layer. `momentum` is the decay d per ghost batch (default
            0.99); `axis` must be the last axis.

    Raises:
        UserError: at construction, if G is below 1, or `renorm` or `synchronized` is True; in any
            call, if `axis` is not the last axis; in a training call, if b is unknown, G does not
            divide b, or the input has a Keras mask.
        ValueError: at construction, if `kernel` is not one of the two kernels.
    """

    def __init__(self, ghost_batch_size: int, kernel: Kernel = "fused", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.set_ghost(ghost_batch_size, kernel)

    def set_ghost(self, ghost_batch_size: int, kernel: Kernel) -> None:
        """Sets G and the kernel; raises an error if a value or the layer's options are wrong."""
        if ghost_batch_size < 1:
            raise UserError(f"ghost_batch_size {ghost_batch_size} is below 1: use 1 or more")
        if kernel not in get_args(Kernel):
            raise ValueError(f"kernel {kernel!r} is not one of {get_args(Kernel)}")
        if self.renorm or self.synchronized:
            raise UserError(
                f"layer {self.name}: renorm and synchronized contradict ghost batch normalization; "
                "build the layer without renorm and synchronized"
            )
        if self.input_spec is not None:
            self._refuse_axis(self.input_spec.ndim)
        self.ghost_batch_size = ghost_batch_size
        self.kernel = kernel

    def _refuse_axis(self, rank: int) -> None:
        if self.axis not in (-1, rank - 1):
            raise UserError(
                f"layer {self.name}: axis {self.axis} of an input of rank {rank} is not the last: "
                "use axis=-1 with channels last, which ghost batch normalization needs"
            )

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        self._refuse_axis(len(inputs.shape))
        if not (training and self.trainable):
            if _collecting.collected is not None:
                _collecting.collected.append(Statistics(self, None, None))
            return super().call(inputs, training=False)
        if mask is not None:
            raise UserError(
                f"layer {self.name}: ghost batch normalization cannot use a mask: remove the mask "
                "before this layer"
            )
        x = tf.convert_to_tensor(inputs)
        ghost_batches = self._count_ghost_batches(x.shape[0])
        channels = x.shape[-1]
        gamma = tf.convert_to_tensor(self.gamma) if self.scale else tf.ones([channels])
        beta = tf.convert_to_tensor(self.beta) if self.center else tf.zeros([channels])
        sizes = {"ghost_batch_size": self.ghost_batch_size, "epsilon": self.epsilon}
        moving_mean = tf.convert_to_tensor(self.moving_mean)
        if self.kernel == "fused":
            y, means, variances = normalize_fused(x, gamma, beta, **sizes)
        else:
            y, means, variances = normalize_reshaped(x, gamma, beta, moving_mean, **sizes)
        if _collecting.collected is not None:
            sums = tf.reduce_sum(means, axis=0), tf.reduce_sum(variances, axis=0)
            _collecting.collected.append(Statistics(self, *sums))
            return y
        for variable, values in ((self.moving_mean, means), (self.moving_variance, variances)):
            old, mean = tf.convert_to_tensor(variable), tf.reduce_mean(values, axis=0)
            variable.assign(update_moving_statistic(old, mean, self.momentum, ghost_batches))
        return y

    def _count_ghost_batches(self, batch: int | None) -> int:
        if batch is None:
            raise UserError(
                f"layer {self.name}: ghost batches need a batch of known size: batch the data with "
                "drop_remainder=True"
            )
        if batch % self.ghost_batch_size:
            divisors = [g for g in range(1, batch + 1) if batch % g == 0]
            raise UserError(
                f"ghost_batch_size {self.ghost_batch_size} does not divide the batch of {batch} "
                f"examples: use one of {', '.join(map(str, divisors))}"
            )
        return batch // self.ghost_batch_size

    def get_config(self) -> dict[str, Any]:
        own = {"ghost_batch_size": self.ghost_batch_size, "kernel": self.kernel}
        return super().get_config() | own
