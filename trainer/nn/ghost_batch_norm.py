"""Ghost batch normalization: each run of G consecutive examples has its own statistics.

This is algorithm 1 of Hoffer, Hubara & Soudry 2017, "Train longer, generalize better". If G divides
a micro-batch, the result depends on G, but not on how replicas and micro-batches divide a batch.

Two kernels give the same numbers, up to rounding:

- `fused` calls FusedBatchNormV3 for each ghost batch. It is the fastest on CPUs without XLA, where
  that op takes two passes: the relative error of the variance is under 1e-5 at any mean. Do not use
  `fused` under XLA, where the op takes one pass without a shift: the relative error is 1e-1 at a
  mean of 100 standard deviations.
- `reshaped` reshapes to [b/G, G, m, c] for b examples with m pixels of c channels, and takes one
  pass, shifted by the moving mean k, which is constant during an update. With d = x − k: mean = k +
  E[d], variance = E[d²] − E[d]². The backward pass is in closed form. `reshaped` is nearly free
  under XLA and on TPUs. The formula is exact for any k, but float32 loses digits if the mean is far
  from k. Measured with up to 112×112 pixels, with and without XLA, the relative error of the
  variance is under 1e-4 if the mean is 10 standard deviations from k, and 6e-3 at 100. The mean may
  be so far from k at first, since k starts at 0.

All variances are biased, as in Keras.
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
    """Statistics of one call of a layer, collected in place of updating the moving statistics.

    Both sums are float32 [c], over the ghost batches of the call. They are None if the model calls
    the layer for inference.
    """

    layer: "GhostBatchNormalization"
    mean_sum: tf.Tensor | None
    variance_sum: tf.Tensor | None


class _Collecting(threading.local):
    """The list of `collect_statistics` in each thread; each replica is traced in its own thread."""

    collected: list[Statistics] | None = None


_collecting = _Collecting()


@contextlib.contextmanager
def collect_statistics() -> Iterator[list[Statistics]]:
    """Makes layers that are called in this thread append Statistics to a list, and update nothing.

    A layer that is called twice appends twice. The tensors belong to the graph that calls the
    layer, so open the scope and use the list in the function that calls the model.
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
    """Returns a moving statistic after n = `ghost_batches`: dⁿ · moving + (1 − dⁿ) · mean.

    `moving` and `mean` are float32 [c]; `mean` is the mean over the n ghost batches. The decay d is
    per ghost batch, in [0, 1].
    """
    log_decay = math.log(decay) if decay > 0 else -math.inf
    # 1 − dⁿ by subtraction would lose two digits at d = 0.99, n = 1.
    weight = -tf.math.expm1(tf.cast(ghost_batches, tf.float32) * log_decay)
    return moving + weight * (mean - moving)


def normalize_fused(
    x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, *, ghost_batch_size: int, epsilon: float
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Normalises x, [b, ..., c], by ghost batches, with gamma and beta, float32 [c].

    Returns the output, of x's shape and dtype (float32, bfloat16 or float16), and the means and
    biased variances of the ghost batches, float32 [b/G, c]. No gradient flows through these two.
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
    n = tf.cast(ghost_batch_size * tf.shape(ghosts)[1], tf.float32)  # examples · positions
    y = tf.concat(outputs, axis=0) if len(outputs) > 1 else outputs[0]
    # The op returns the unbiased variance, which is n/(n−1) times the biased one.
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
    """Returns what `normalize_fused` does; `shift`, float32 [c], is k of the module's docstring."""
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
            # From the forward pass, only x (in its own dtype), mean and inv are kept in memory.
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
    """Returns the mean of [b/G, G, m, c] over G and m, in two stages.

    One long float32 sum would lose a digit. For example, with 32 × 28 × 28 terms at 10 standard
    deviations from the shift, the error of the variance is 3e-4 in one stage, and 3e-5 in two.
    """
    positions = tf.reduce_mean(x, axis=2, keepdims=True)
    return tf.reduce_mean(positions, axis=1, keepdims=True)


@keras.saving.register_keras_serializable(package="crescendo")
class GhostBatchNormalization(keras.layers.BatchNormalization):
    """Keras' BatchNormalization with statistics over ghost batches of G examples.

    Weights and TensorFlow checkpoints are those of keras.layers.BatchNormalization. A Keras file
    names the class of each layer, so load the file of a plain model, and then `ghostify` the model.
    The input is [b, ..., c]. In training, b must be static, and G must divide b. Statistics are
    float32 at every compute dtype. Outside `collect_statistics`, a training call applies
    `update_moving_statistic` with its own n = b/G ghost batches.

    Args:
        ghost_batch_size: G, examples.
        kernel: "fused" or "reshaped", as described at the top of this module.
        **kwargs: arguments of Keras' layer. `momentum` is the decay d per ghost batch (default
            0.99); `axis` must be the last.

    Raises:
        UserError: at construction, if G is below 1, or with `renorm` or `synchronized`; in any
            call, if `axis` is not the last; in a training call, if b is unknown, G does not
            divide b, or the input has a Keras mask.
    """

    def __init__(self, ghost_batch_size: int, kernel: Kernel = "fused", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.set_ghost(ghost_batch_size, kernel)

    def set_ghost(self, ghost_batch_size: int, kernel: Kernel) -> None:
        """Sets G and the kernel; raises an error if the layer's options contradict them."""
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
