"""Mixes each image with a partner, another image of its ghost batch: mixup and cutmix.

A ghost batch is G consecutive examples that share batch-norm statistics. Each ghost batch has a
random integer r from 1 to G − 1. The image at place i of the ghost batch has the image at place
(i + r) mod G as its partner. Each image x, with its partner p, has a random λ from Beta(α, α):

- mixup (Zhang et al. 2018, 1710.09412) returns λ x + (1 − λ) p, rounded to whole grey levels.
- cutmix (Yun et al. 2019, 1905.04899) copies a box of p into x. The box has the image's aspect
  ratio and about 1 − λ of its area. The box's centre is uniform over the pixels. λ is then set to
  the share of the pixels that are outside the box.

The target gives the label of x the weight λ, and the label of p the weight 1 − λ.

All random numbers come from hashes of (seed, position). The position of an example is the number of
examples that the run consumes before the example. λ and the centre use the position of the example.
The position of the ghost batch's first example determines r, and whether mixup or cutmix is used.
A ghost batch starts at a multiple of G, or of G after a fork's first position. So the mixtures do
not depend on micro-batches, replicas or restarts.
"""

import dataclasses
import functools

import numpy as np
import tensorflow as tf

from trainer.config.flags import Config
from trainer.nn.losses import MixedLabels
from trainer.nn.splitmix64 import further_bits, random_bits, shift_right

# Augmentation hashes the same seed. Mixing combines the seed with this number, to get other bits.
# The number is arbitrary: it is the arXiv number of mixup's paper.
_DOMAIN = 1710_09412
_QUANTILES = 2**12  # Number of equally likely values of λ.
# λ is a multiple of 1 / _STEPS, so that float32 computes the mixture of two grey levels exactly.
_STEPS = 2**16


@dataclasses.dataclass(frozen=True)
class Mixing:
    """Settings of mixing; if a run uses mixup and cutmix, each ghost batch draws one of them.

    Attributes:
      mixup_alpha: α of mixup; None: mixup is not used.
      cutmix_alpha: α of cutmix; None: cutmix is not used.
      ghost_batch_size: G, the number of examples in a ghost batch, at least 2.
    """

    mixup_alpha: float | None
    cutmix_alpha: float | None
    ghost_batch_size: int


def from_config(config: Config) -> Mixing | None:
    """Returns the settings of mixing, or None if --augment names neither mixup nor cutmix."""
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
    """Returns the 4,096 equally likely values of λ, which approximate Beta(α, α).

    Returns:
      float64 [4096], ascending. Element i is the quantile of Beta(α, α) at (i + ½) / 4,096, rounded
      to a multiple of 2⁻¹⁶. Beta(α, α) is symmetric, so elements i and 4,095 − i have the sum 1.
    """
    # In units of 2⁻¹⁶, a quantile rounds to the number of midpoints ½, 1½, 2½, … below it. A
    # midpoint is below the quantile if its cumulative probability is below the quantile's level.
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
      position: position of the first example, int64 [], which begins a ghost batch. After a
        fork, it may not be a multiple of G.
      mixing: settings of mixing; None: images and labels do not change.
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

    # `own` is λ, the share of an image in its mixture. Without mixup, λ is 1 until cutmix sets it.
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
    """Returns random integers in [0, limit), int32; their probabilities differ by 2⁻³² at most."""
    return tf.cast(tf.cast(shift_right(words, 32), tf.int64) % limit, tf.int32)


def _blend(images: tf.Tensor, others: tf.Tensor, own: tf.Tensor) -> tf.Tensor:
    """Returns own · images + (1 − own) · others, rounded to integers; `own` is float32 [b]."""
    ours, theirs = tf.cast(images, tf.float32), tf.cast(others, tf.float32)
    # float32 is exact here: grey levels have 8 bits, shares have 16 bits, and a float32 holds 24
    # bits. Only the cast rounds. It rounds down, so adding 0.5 gives the nearest integer.
    return tf.cast(ours + (theirs - ours) * (1 - own)[:, None, None, None] + 0.5, tf.uint8)


def _cut(
    images: tf.Tensor, others: tf.Tensor, alpha: float, used: tf.Tensor, words: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Copies a box of each partner into its image, if `used` is True for the image.

    As in the code of CutMix's authors, the box has the sides h √(1 − λ) and w √(1 − λ). The box
    extends from its centre by half a side in each direction, rounded down to whole pixels. Parts
    of the box outside of the image are left out.

    Args:
      images: uint8 [b, h, w, c].
      others: the partners of the images, uint8 [b, h, w, c].
      alpha: α of the distribution of λ.
      used: bool [b], whether the image gets a box.
      words: random bits, uint64 [b, 3].

    Returns:
      The new images, then the share of each image's pixels that are outside the box, float32 [b].
    """
    _, height, width, channels = images.shape
    level = tf.cast(shift_right(words[:, 0], 52), tf.int32)
    sides = np.sqrt(1 - shares(alpha))  # The box's sides, as fractions of the image's sides.

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
