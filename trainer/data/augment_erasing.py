"""Applies random erasing (Zhong et al. 2017, algorithm 1): noise replaces a part of some images."""

from collections.abc import Sequence

import tensorflow as tf

from trainer.nn.splitmix64 import further_bits, random_bits, shift_right

Limits = tuple[float, float]

# Smallest and largest aspect of the rectangle, as defined in `erase`. The paper calls them r₁ and
# 1 / r₁.
_ASPECT = (0.3, 1 / 0.3)
# The hash of (seed, position) starts a sequence of random 64-bit words. An image's position is the
# number of examples that the run consumes before the image. Words 0 to 4 decide whether to erase,
# and where. Words from 16 on are the noise. Words 8 to 15 belong to augment_policies.py.
_DRAWS, _NOISE = 0, 16


def erasing(
    images: tf.Tensor, positions: tf.Tensor, seed: int, *, probability: float, area: Limits
) -> tf.Tensor:
    """Replaces a rectangle of some images with noise.

    Args:
        images: uint8 [b, h, w, c].
        positions: int64 [b], number of examples that the run consumed before each image.
        seed: seed of the run.
        probability: probability that an image gets a rectangle of noise.
        area: smallest and largest area of the rectangle, as fractions of the image's area.
    """
    bits = random_bits(positions, seed)  # [b]
    found = tf.unstack(draws(further_bits(bits, 5, _DRAWS)), axis=1)
    return erase(
        images, bits, found, noise=_NOISE, probability=probability, area=area, aspect=_ASPECT
    )


def draws(words: tf.Tensor) -> tf.Tensor:
    """Returns uniform numbers in [0, 1), float64, from the highest 53 bits of uint64 words."""
    return tf.cast(shift_right(words, 11), tf.float64) * 2.0**-53  # A float64 holds all 53 bits.


def between(uniform: tf.Tensor, lowest: float | tf.Tensor, highest: float | tf.Tensor) -> tf.Tensor:
    """Maps uniform numbers in [0, 1) to the range from `lowest` to `highest`."""
    return lowest + (highest - lowest) * uniform


def erase(
    images: tf.Tensor,
    bits: tf.Tensor,
    found: Sequence[tf.Tensor],
    *,
    noise: int,
    probability: float,
    area: Limits,
    aspect: Limits,
) -> tf.Tensor:
    """Replaces a rectangle of some images with noise, and computes noise only for these images.

    As in the paper, area and aspect are uniform, and each erased pixel and channel gets its own
    random value. The aspect is the rectangle's height / width, divided by the image's height /
    width. So it is the paper's aspect if the image is square. If a rectangle does not fit into the
    image, the paper draws another rectangle. This function draws the area first, and then an aspect
    with which the rectangle fits. All places where the rectangle fits are equally likely.

    Args:
        images: uint8 [b, h, w, c].
        bits: uint64 [b], hash of (seed, position) for each image.
        found: five uniform draws for each image, each float64 [b] in [0, 1). The first decides
            whether to erase. The other four give area, aspect, row and column of the rectangle.
        noise: index of the first word of noise in the sequence of words that the hash starts.
        probability: probability that an image gets a rectangle of noise.
        area: smallest and largest area of the rectangle, as fractions of the image's area.
        aspect: smallest and largest aspect of the rectangle.
    """
    _, height, width, channels = images.shape
    places = tf.where(found[0] < probability)[:, 0]  # int64 [n], the erased images
    inside = _inside([tf.gather(draw, places) for draw in found[1:]], images.shape, area, aspect)
    flat = [-1, height, width * channels]
    words = further_bits(tf.gather(bits, places), -(-height * width * channels // 8), noise)
    values = tf.reshape(tf.bitcast(words, tf.uint8), [tf.size(places), words.shape[1] * 8])
    values = tf.reshape(values[:, : height * width * channels], flat)
    changed = tf.where(inside, values, tf.reshape(tf.gather(images, places), flat))
    changed = tf.reshape(changed, [-1, height, width, channels])
    return tf.tensor_scatter_nd_update(images, places[:, None], changed)


def _inside(
    rectangle: Sequence[tf.Tensor], shape: tf.TensorShape, area: Limits, aspect: Limits
) -> tf.Tensor:
    """Returns whether each value of n images is in the image's rectangle, bool [n, h, w · c].

    `rectangle` holds four uniform draws in [0, 1), each float64 [n]: for area, aspect, row and
    column. The rectangle's sides are rounded to whole pixels. Columns and channels share an axis,
    because broadcasting over channels takes longer.
    """
    _, height, width, channels = shape
    size, form, row, column = rectangle
    size = between(size, *area)
    form = between(form, tf.maximum(size, aspect[0]), tf.minimum(1 / size, aspect[1]))
    rows = tf.floor(height * tf.sqrt(size * form) + 0.5)  # [n], the rectangle's height
    columns = tf.floor(width * tf.sqrt(size / form) + 0.5)
    top = tf.floor(row * (height - rows + 1))
    left = tf.floor(column * (width - columns + 1))
    y = tf.range(height, dtype=tf.float64)
    x = tf.cast(tf.range(width * channels) // channels, tf.float64)
    inside_rows = (y >= top[:, None]) & (y < (top + rows)[:, None])  # [n, h]
    inside_columns = (x >= left[:, None]) & (x < (left + columns)[:, None])  # [n, w · c]
    return inside_rows[:, :, None] & inside_columns[:, None, :]
