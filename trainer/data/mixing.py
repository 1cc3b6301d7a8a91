"""Mixes the images of each ghost batch in pairs: mixup and cutmix.

- mixup (Zhang et al. 2018, 1710.09412): λ a + (1 − λ) b, for image a and its partner b. Grey levels
  are rounded to integers.
- cutmix (Yun et al. 2019, 1905.04899): a box of about (1 − λ) of the area of a shows b. The box has
  the image's aspect, and its centre is uniform over the pixels. λ is then replaced by the share of
  the pixels that are outside the box.

λ ~ Beta(α, α). The labels of a and b have the shares λ and 1 − λ. The partner of the image at place
i of a ghost batch of G images is at place (i + r) mod G, with r in 1, ..., G − 1. So each image is
the partner of one other image.

All random numbers come from hashes of (seed, position). The position of an example is the number of
examples that the run consumes before the example. λ and the centre use the position of the example.
r and the choice between mixup and cutmix use the position of the ghost batch's first example. Ghost
batches start at multiples of G, so no micro-batch, replica or restart changes a mixture.
"""

import dataclasses
import functools

import numpy as np
import tensorflow as tf

from trainer.config.flags import Config
from trainer.nn.losses import MixedLabels
from trainer.nn.splitmix64 import further_bits, random_bits, shift_right

# Augmentation hashes the same seed; this arbitrary number gives mixing other bits. It is the number
# of mixup's paper.
_DOMAIN = 1710_09412
_QUANTILES = 2**12  # Number of values of λ, which are equally likely.
# λ is a multiple of 1 / _STEPS, so that float32 computes the mixture of two grey levels exactly.
_STEPS = 2**16


@dataclasses.dataclass(frozen=True)
class Mixing:
    """Mixing of a run; if mixup and cutmix are both in use, each ghost batch draws one of them.

    Attributes:
      mixup_alpha: α of mixup; None: no mixup.
      cutmix_alpha: α of cutmix; None: no cutmix.
      ghost_batch_size: G, above 1.
    """

    mixup_alpha: float | None
    cutmix_alpha: float | None
    ghost_batch_size: int


def from_config(config: Config) -> Mixing | None:
    """Returns the mixtures that --augment names; None if it names none."""
    named = config.augmentation.mixing
    if not named:
        return None
    return Mixing(
        config.mixup_alpha if "mixup" in named else None,
        config.cutmix_alpha if "cutmix" in named else None,
        config.ghost_batch_size,
    )


@functools.cache
def shares(alpha: float) -> np.ndarray:
    """Returns the (i + ½) / 4,096 quantiles of Beta(α, α), rounded to multiples of 2⁻¹⁶.

    Returns:
      float64 [4096], ascending. The distribution is symmetric, so share i is 1 − share 4,095 − i.
    """
    # A quantile, rounded to steps, is the number of midpoints of steps that are below the quantile.
    midpoints = (np.arange(_STEPS // 2) + 0.5) / _STEPS
    with tf.device("CPU:0"), tf.init_scope():
        both = tf.constant(alpha, tf.float64)
        probabilities = tf.math.betainc(both, both, tf.constant(midpoints)).numpy()
    levels = (np.arange(_QUANTILES // 2) + 0.5) / _QUANTILES
    lower = np.searchsorted(probabilities, levels, side="right")
    return np.concatenate([lower, _STEPS - lower[::-1]]) / _STEPS


def mix(
    images: tf.Tensor, labels: tf.Tensor, position: tf.Tensor, mixing: Mixing | None, seed: int
) -> tuple[tf.Tensor, tf.Tensor | MixedLabels]:
    """Mixes the images and labels of consecutive ghost batches.

    Args:
      images: uint8 [b, h, w, c]; G divides b.
      labels: int32 [b].
      position: position of the first example, int64 [], a multiple of G.
      mixing: the mixtures; None: images and labels do not change.
      seed: seed of the run.
    """
    if mixing is None:
        return images, labels
    ghost, size = mixing.ghost_batch_size, tf.shape(images)[0]
    positions = position + tf.range(tf.cast(size, tf.int64))
    words = further_bits(random_bits(positions, seed ^ _DOMAIN << 32), 5)  # [b, 5]
    of_group = tf.reshape(words, [-1, ghost, 5])[:, 0]  # [b / G, 5]
    places = (tf.range(ghost) + 1 + _below(ghost - 1, of_group[:, 3])[:, None]) % ghost
    partners = tf.reshape(places + ghost * tf.range(size // ghost)[:, None], [-1])  # [b]
    others = tf.gather(images, partners)
    level = tf.cast(shift_right(words[:, 0], 52), tf.int32)  # 12 bits

    # Without mixup, or in a ghost batch of cutmix, the image is first kept whole: its share is 1.
    own = tf.ones([size])
    cut = tf.repeat(_below(2, of_group[:, 4]) == 1, ghost)  # [b]
    mixed = images
    if mixing.mixup_alpha is not None:
        own = tf.gather(tf.constant(shares(mixing.mixup_alpha), tf.float32), level)
        if mixing.cutmix_alpha is not None:
            own = tf.where(cut, tf.ones_like(own), own)
        mixed = _blend(images, others, own)
    if mixing.cutmix_alpha is not None:
        used = cut if mixing.mixup_alpha is not None else tf.ones_like(cut)
        mixed, uncut = _cut(mixed, others, mixing.cutmix_alpha, used, words[:, :3])
        own = tf.where(used, uncut, own)
    return mixed, MixedLabels(labels, tf.gather(labels, partners), own)


def _below(limit: int, words: tf.Tensor) -> tf.Tensor:
    """Returns integers from 0 to `limit` − 1, int32, uniform to limit / 2³²."""
    return tf.cast(tf.cast(shift_right(words, 32), tf.int64) % limit, tf.int32)


def _blend(images: tf.Tensor, others: tf.Tensor, own: tf.Tensor) -> tf.Tensor:
    """Returns own · images + (1 − own) · others, rounded to integers; `own` is float32 [b]."""
    ours, theirs = tf.cast(images, tf.float32), tf.cast(others, tf.float32)
    # float32 is exact here: a grey level has 8 bits, and a share 16. Only the cast rounds, down.
    return tf.cast(ours + (theirs - ours) * (1 - own)[:, None, None, None] + 0.5, tf.uint8)


def _cut(
    images: tf.Tensor, others: tf.Tensor, alpha: float, used: tf.Tensor, words: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Shows a box of `others` in each image for which `used`, bool [b], is True.

    The box is that of the authors' code: h √(1 − λ) by w √(1 − λ). Half of each side is rounded
    down, and the box is cut off at the image's border.

    Args:
      images: uint8 [b, h, w, c].
      others: uint8 [b, h, w, c].
      alpha: α of the distribution of λ.
      used: bool [b].
      words: random bits, uint64 [b, 3].

    Returns:
      The images, and the share of each image's pixels outside of the box, float32 [b].
    """
    _, height, width, channels = images.shape
    level = tf.cast(shift_right(words[:, 0], 52), tf.int32)
    sides = np.sqrt(1 - shares(alpha))  # of the box, as fractions of the image's

    def interval(length: int, word: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        half = tf.gather(tf.constant((length * sides).astype(np.int32) // 2), level)
        half = tf.where(used, half, tf.zeros_like(half))
        centre = _below(length, word)
        return tf.maximum(centre - half, 0), tf.minimum(centre + half, length)

    top, bottom = interval(height, words[:, 1])  # [b]
    left, right = interval(width, words[:, 2])
    # Columns and channels share an axis, because broadcasting over channels takes longer.
    y, x = tf.range(height), tf.range(width * channels) // channels
    rows = (y >= top[:, None]) & (y < bottom[:, None])  # [b, h]
    columns = (x >= left[:, None]) & (x < right[:, None])  # [b, w · c]
    inside = rows[:, :, None] & columns[:, None, :]
    flat = [-1, height, width * channels]
    result = tf.where(inside, tf.reshape(others, flat), tf.reshape(images, flat))
    area = (bottom - top) * (right - left)
    outside = tf.cast(height * width - area, tf.float32) / (height * width)
    return tf.reshape(result, tf.shape(images)), outside
