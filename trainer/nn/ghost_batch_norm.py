"""Ghost batch normalization: each run of G consecutive examples has its own statistics.

Hoffer, Hubara & Soudry 2017, "Train longer, generalize better", algorithm 1. What is learned then
depends on G, not on how a batch lies on micro-batches and replicas, as long as G divides them.

Two kernels give the same numbers (measured costs: reference/stack.md §5):

- `fused`: split into ghost batches, one FusedBatchNormV3 each. The fastest on CPUs without XLA,
  where that op is two-pass: the variance has a relative error under 1e-5 at any mean. Under XLA the
  same op is one-pass and unshifted (1e-1 at a mean of 100 standard deviations): not there.
- `reshaped`: one reshape to [b/G, G, m, c] and one pass over it, shifted by the moving mean k, a
  constant during an update: with d = x − k, mean = k + E[d], variance = E[d²] − E[d]². The backward
  pass is in closed form. Nearly free under XLA and on TPUs. The formula is exact for any k, but
  float32 cancels where the mean is many standard deviations from k. Measured relative error of the
  variance, up to 112×112 positions, with and without XLA: under 1e-4 at 10 standard deviations from
  k (k within 10% of a mean of 100, or a cold start, k = 0, at a mean of 10); 6e-3 at a cold start
  at a mean of 100, until k has moved.

The variance is the biased one throughout, as in Keras.
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
    """Statistics that one call of one layer hands over instead of moving its own.

    Both sums are float32 [c], over the call's ghost batches; the variances are biased. They are
    None if the model called the layer for inference, where nothing moves.
    """

    layer: "GhostBatchNormalization"
    mean_sum: tf.Tensor | None
    variance_sum: tf.Tensor | None


class _Collecting(threading.local):
    """The open scope's list, one a thread: MirroredStrategy traces each replica in its own."""

    collected: list[Statistics] | None = None


_collecting = _Collecting()


@contextlib.contextmanager
def collect_statistics() -> Iterator[list[Statistics]]:
    """Within the scope, this thread's calls append their Statistics and move nothing.

    A layer called twice appends twice. The tensors belong to the graph that called the layer: open
    the scope and use the list in the function that calls the model.
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
    """A moving statistic after n ghost batches: dⁿ·moving + (1 − dⁿ)·mean.

    Args:
        moving: the statistic before, float32 [c].
        mean: the mean of the statistic over the n ghost batches, float32 [c].
        decay: d, per ghost batch, in [0, 1].
        ghost_batches: n = B/G of the whole update, at least 1; a tensor or an int.
    """
    log_decay = math.log(decay) if decay > 0 else -math.inf
    # 1 − dⁿ by subtraction would lose two digits at d = 0.99, n = 1.
    weight = -tf.math.expm1(tf.cast(ghost_batches, tf.float32) * log_decay)
    return moving + weight * (mean - moving)


def normalize_fused(
    x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, *, ghost_batch_size: int, epsilon: float
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Normalises x, [b, ..., c], by ghost batches; gamma, beta float32 [c].

    Returns the output, of x's shape and dtype (float32, bfloat16 or float16), and the ghost
    batches' means and biased variances, float32 [b/G, c], through which no gradient flows.
    """
    b, c = x.shape[0], x.shape[-1]
    ghosts = tf.reshape(x, [b, -1, 1, c])  # [b, m, 1, c]
    outputs, means, variances = [], [], []
    for ghost in tf.split(ghosts, b // ghost_batch_size) if b > ghost_batch_size else [ghosts]:
        # The raw op: tf.nn.fused_batch_norm would raise epsilon to cuDNN's smallest.
        fused = tf.raw_ops.FusedBatchNormV3(
            x=ghost,  # [G, m, 1, c]
            scale=gamma,
            offset=beta,
            mean=tf.zeros([0]),
            variance=tf.zeros([0]),
            epsilon=epsilon,
            is_training=True,
        )
        outputs.append(fused.y)
        means.append(fused.batch_mean)
        variances.append(fused.batch_variance)
    n = tf.cast(ghost_batch_size * tf.shape(ghosts)[1], tf.float32)  # examples · positions
    y = tf.concat(outputs, axis=0) if len(outputs) > 1 else outputs[0]
    # The kernel returns Bessel's unbiased variance: n/(n−1) times ours.
    biased = tf.stack(variances) * ((n - 1) / n)
    return (
        tf.reshape(y, tf.shape(x)),
        tf.stop_gradient(tf.stack(means)),
        tf.stop_gradient(biased),
    )


def normalize_reshaped(
    x: tf.Tensor,
    gamma: tf.Tensor,
    beta: tf.Tensor,
    shift: tf.Tensor,
    *,
    ghost_batch_size: int,
    epsilon: float,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """As normalize_fused, in one pass; shift float32 [c] is k of the module's docstring."""
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
            # Only x, in its own dtype, mean and inv live until here.
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
    """The mean of [b/G, G, m, c] over G and m, in two stages.

    One long float32 sum costs a digit: at 10 standard deviations from the shift and 32 × 28 × 28
    terms the variance is 3e-4 off by one sum, 3e-5 by two, in the same time.
    """
    positions = tf.reduce_mean(x, axis=2, keepdims=True)
    return tf.reduce_mean(positions, axis=1, keepdims=True)


@keras.saving.register_keras_serializable(package="crescendo")
class GhostBatchNormalization(keras.layers.BatchNormalization):
    """Keras' BatchNormalization with statistics over ghost batches of G examples.

    Weights and TensorFlow checkpoints are those of keras.layers.BatchNormalization. Keras' own
    files find layers by their class: load a plain model's first and `ghostify` it then. In
    training, the input is [b, ..., c] with a static b that G divides; at inference b is free.
    Statistics are float32 whatever the compute dtype. Outside of `collect_statistics` a training
    call moves its own moving statistics by `moved` with its n = b/G ghost batches.

    Args:
        ghost_batch_size: G, examples.
        kernel: "fused" or "reshaped"; see the module.
        **kwargs: Keras' own. `momentum` is the decay d per ghost batch, 0.99; `axis` must be the
            last one.

    Raises:
        UserError: in a training call where b is unknown or not divisible by G or the input carries
            a Keras mask; in any call where axis is not the last; at construction for G under 1,
            `renorm` and `synchronized`.
    """

    def __init__(self, ghost_batch_size: int, kernel: Kernel = "fused", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.set_ghost(ghost_batch_size, kernel)

    def set_ghost(self, ghost_batch_size: int, kernel: Kernel) -> None:
        """Sets what Keras' layer does not have, and refuses what the ghost layer cannot do."""
        if ghost_batch_size < 1:
            raise UserError(f"ghost_batch_size {ghost_batch_size}: it must be 1 or more")
        if kernel not in get_args(Kernel):
            raise ValueError(f"kernel {kernel!r} is none of {get_args(Kernel)}")
        if self.renorm or self.synchronized:
            raise UserError(
                f"layer {self.name}: renorm and synchronized contradict ghost batch normalization; "
                "build the layer without them"
            )
        if self.input_spec is not None:
            self._refuse_axis(self.input_spec.ndim)
        self.ghost_batch_size = ghost_batch_size
        self.kernel = kernel

    def _refuse_axis(self, rank: int) -> None:
        if self.axis not in (-1, rank - 1):
            raise UserError(
                f"layer {self.name}: axis {self.axis} of an input of rank {rank} is not the last; "
                "ghost batch normalization needs channels last (axis=-1)"
            )

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        self._refuse_axis(len(inputs.shape))
        if not (training and self.trainable):
            if _collecting.collected is not None:
                _collecting.collected.append(Statistics(self, None, None))
            return super().call(inputs, training=False)
        if mask is not None:
            raise UserError(
                f"layer {self.name}: ghost batch normalization has no masked statistics; remove "
                "the mask before it"
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
            mean = tf.reduce_mean(values, axis=0)
            variable.assign(
                update_moving_statistic(
                    tf.convert_to_tensor(variable), mean, self.momentum, ghost_batches
                )
            )
        return y

    def _count_ghost_batches(self, batch: int | None) -> int:
        if batch is None:
            raise UserError(
                f"layer {self.name}: ghost batches need a batch of known size; batch the data with "
                "drop_remainder=True"
            )
        if batch % self.ghost_batch_size:
            divisors = [g for g in range(1, batch + 1) if batch % g == 0]
            raise UserError(
                f"ghost_batch_size {self.ghost_batch_size} does not divide the batch of {batch} "
                f"examples; these do: {', '.join(map(str, divisors))}"
            )
        return batch // self.ghost_batch_size

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "ghost_batch_size": self.ghost_batch_size,
            "kernel": self.kernel,
        }
