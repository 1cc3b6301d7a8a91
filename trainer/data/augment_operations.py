"""Applies the operations of RandAugment and TrivialAugment, each to a batch of images.

The functions return the same pixels as Pillow's ImageOps, ImageEnhance and nearest-neighbour
transforms. The result for an image does not depend on its batch: the functions compute in
integers, or in floats that round in the same way in any batch. Each function accepts empty batches.
"""

import tensorflow as tf

# Pillow's weights of red, green and blue in a grey level, in units of 1 / 65,536 (ITU-R BT.601).
_GREY = (19595, 38470, 7471)
LEVELS = 256


def move(images: tf.Tensor, affine: tf.Tensor) -> tf.Tensor:
    """Moves the pixels of each image by an affine map; pixels from outside of the image are black.

    Args:
        images: uint8 [n, h, w, c].
        affine: map of each image, int32 [n, 6], as in `augment_cases.Cases`.
    """
    _, height, width, channels = images.shape
    by_x, by_y, start = (affine[:, i : i + 4 : 3] for i in range(3))  # [n, 2]: column and row
    x = by_x[:, None, :] * tf.range(width)[:, None]  # [n, w, 2]
    y = by_y[:, None, :] * tf.range(height)[:, None] + start[:, None, :]  # [n, h, 2]
    column = tf.bitwise.right_shift(x[:, None, :, 0] + y[:, :, None, 0], 16)  # [n, h, w]
    row = tf.bitwise.right_shift(x[:, None, :, 1] + y[:, :, None, 1], 16)
    # The image gets a black border, one pixel wide. Places outside of the image become places on
    # this border.
    column = tf.minimum(tf.maximum(column, -1), width)
    row = tf.minimum(tf.maximum(row, -1), height)
    pixels = row * (width + 2) + (column + (width + 3))
    bordered = tf.pad(images, [[0, 0], [1, 1], [1, 1], [0, 0]])
    flat = tf.reshape(bordered, [-1, (height + 2) * (width + 2), channels])
    return tf.gather(flat, pixels, batch_dims=1)


def recolour(images: tf.Tensor, tables: tf.Tensor) -> tf.Tensor:
    """Replaces each level of `images`, uint8 [n, h, w, c], by its entry in the channel's table.

    `tables`, uint8 [n, c, 256], holds a table for each channel of each image.
    """
    _, height, width, channels = images.shape
    # The tables of an image's channels are joined. Each level becomes an index in the joined table.
    places = tf.cast(tf.reshape(images, [-1, height * width * channels]), tf.int32)
    if channels > 1:
        places += tf.tile(tf.range(channels) * LEVELS, [height * width])
    flat = tf.reshape(tables, [-1, channels * LEVELS])
    return tf.reshape(tf.gather(flat, places, batch_dims=1), [-1, height, width, channels])


def autocontrast_tables(images: tf.Tensor) -> tf.Tensor:
    """Returns tables, uint8 [n, c, 256], that stretch each channel's levels to 0 … 255."""
    lowest, highest = (
        tf.cast(reduce(images, [1, 2]), tf.float64)[..., None]
        for reduce in (tf.reduce_min, tf.reduce_max)
    )  # [n, c, 1]
    levels = tf.range(LEVELS, dtype=tf.float64)
    scale = 255 / tf.maximum(highest - lowest, 1)
    stretched = tf.clip_by_value(levels * scale + -lowest * scale, 0, 255)
    # The cast rounds down. A channel that has only one level does not change.
    return tf.cast(tf.where(highest > lowest, stretched, levels), tf.uint8)


def equalize_tables(images: tf.Tensor) -> tf.Tensor:
    """Returns tables, uint8 [n, c, 256], that make each channel's levels about equally frequent."""
    _, height, width, channels = images.shape
    rows = tf.reshape(tf.transpose(images, [0, 3, 1, 2]), [-1, height * width])  # [n · c, h · w]
    histogram = tf.raw_ops.DenseBincount(
        input=tf.cast(rows, tf.int32),
        size=LEVELS,
        weights=tf.zeros([0], tf.int32),
        binary_output=False,
    )
    highest = tf.cast(tf.reduce_max(rows, axis=1), tf.int32)
    most = tf.gather(histogram, highest, batch_dims=1)[:, None]  # count of the highest level
    step = (height * width - most) // 255
    below = tf.cumsum(histogram, axis=1, exclusive=True)
    spread = tf.minimum((step // 2 + below) // tf.maximum(step, 1), 255)
    tables = tf.where(step > 0, spread, tf.range(LEVELS))
    return tf.reshape(tf.cast(tables, tf.uint8), [-1, channels, LEVELS])


def toward_grey(images: tf.Tensor, to_mean: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Mixes each image with its grey image (for color) or its mean grey level (for contrast).

    Args:
        images: uint8 [n, h, w, c] with 1 or 3 channels.
        to_mean: bool [n], whether to mix an image with its mean grey level.
        factor: share of the image in the mixture, float32 [n]. If the share is above 1, the
            image's difference from grey grows.
    """
    _, height, width, channels = images.shape
    values = tf.cast(tf.reshape(images, [-1, channels]), tf.float32)
    if channels == 3:
        # All numbers are integers below 2²⁴, so float32 sums are exact in any order. Each channel
        # gets the grey level, because broadcasting over channels takes longer.
        weights = tf.tile(tf.constant(_GREY, tf.float32)[:, None], [1, channels])
        values = tf.floor((tf.matmul(values, weights) + 2**15) / 2**16)
    grey = tf.reshape(values, [-1, height * width * channels])
    total = tf.reduce_sum(tf.cast(grey, tf.int64), axis=1)  # [n]
    count = grey.shape[1]
    mean = tf.cast((2 * total + count) // (2 * count), tf.float32)
    other = tf.where(to_mean[:, None], mean[:, None], grey)
    return _mixed(tf.reshape(other, tf.shape(images)), images, factor)


def sharpen(images: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Mixes each image with its smooth image, but keeps the pixels on its border.

    A pixel of the smooth image is a weighted mean of 3 × 3 pixels: the middle pixel has weight 5,
    and the others have weight 1.

    Args:
        images: uint8 [n, h, w, c].
        factor: share of the image in the mixture, float32 [n]; above 1, the image becomes sharper.
    """
    _, height, width, _ = images.shape
    if height < 3 or width < 3:
        return images
    values = tf.cast(images, tf.float32)
    rows = values[:, :-2] + values[:, 1:-1] + values[:, 2:]
    total = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:] + 4 * values[:, 1:-1, 1:-1]
    # An integer / 13 is at least 1/26 away from k + 0.5, for any integer k. So the error of the
    # division does not change the rounded value.
    smooth = tf.pad(tf.floor(total / 13 + 0.5), [[0, 0], [1, 1], [1, 1], [0, 0]])
    inner = tf.pad(tf.ones([height - 2, width - 2, 1], tf.bool), [[1, 1], [1, 1], [0, 0]])
    return _mixed(tf.where(inner, smooth, values), images, factor)


def _mixed(other: tf.Tensor, images: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Returns other + factor · (images − other), rounded down and clipped, as uint8."""
    factor = factor[:, None, None, None]
    mixed = other + factor * (tf.cast(images, tf.float32) - other)
    return tf.cast(tf.minimum(tf.maximum(mixed, 0), 255), tf.uint8)  # The cast rounds down.
