"""From the bytes of one JPEG or PNG file to pixels of the model's size.

JPEGs are cropped while they are decoded: blocks outside of the crop are skipped. Random crops are
a function of 64 random bits that belong to the position. Crops are resized between the four nearest
pixels: with antialiasing, as whole images are, it would cost as much as the decoding.
"""

from collections.abc import Callable

import tensorflow as tf

Shape = tuple[int, int, int]

# Szegedy et al. 2015 (arXiv:1409.4842), §6: 8% to 100% of the area, sides from 3:4 to 4:3.
CROP_AREA = (0.08, 1.0)
CROP_ASPECT = (3 / 4, 4 / 3)
_ATTEMPTS = 10  # then the whole image; of an image of 3:4, one in 10⁴ falls back
# Of the shorter side: 224 of 256 pixels.
CENTRAL = 0.875


def whole(encoded: tf.Tensor, shape: Shape) -> tf.Tensor:
    """The whole image, stretched to `shape` where it has another: uint8 [h, w, c].

    Resized with antialiasing, since small images come from sizes much larger than theirs.
    """
    height, width, channels = shape
    pixels = _decoded(encoded, channels)

    def resized() -> tf.Tensor:
        smaller = tf.image.resize(pixels, (height, width), antialias=True)
        return tf.saturate_cast(tf.round(smaller), tf.uint8)

    same = tf.reduce_all(tf.equal(tf.shape(pixels), shape))
    return tf.ensure_shape(tf.cond(same, lambda: pixels, resized), shape)


def central_crop(encoded: tf.Tensor, shape: Shape) -> tf.Tensor:
    """The central square of 87.5% of the shorter side, resized to `shape`: uint8 [h, w, c]."""

    def window(size: tf.Tensor) -> tf.Tensor:
        shorter = tf.cast(tf.reduce_min(size[:2]), tf.float32)
        side = tf.maximum(1, tf.cast(tf.round(CENTRAL * shorter), tf.int32))
        top, left = (size[0] - side) // 2, (size[1] - side) // 2
        return tf.stack([top, left, side, side])

    return _cropped(encoded, shape, window)


def random_crop(encoded: tf.Tensor, bits: tf.Tensor, shape: Shape) -> tf.Tensor:
    """A part of random area, aspect and place, resized, half of them flipped: uint8 [h, w, c].

    Szegedy et al. 2015, §6, as TensorFlow's `sample_distorted_bounding_box` draws it.

    Args:
        encoded: a file's bytes.
        bits: uint64 [], the position's own.
        shape: (h, w, c).
    """

    def window(size: tf.Tensor) -> tf.Tensor:
        begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
            size,
            tf.zeros([1, 0, 4]),
            seed=tf.stack([tf.bitcast(bits, tf.int64), tf.constant(0, tf.int64)]),
            min_object_covered=0.0,
            aspect_ratio_range=CROP_ASPECT,
            area_range=CROP_AREA,
            max_attempts=_ATTEMPTS,
            use_image_if_no_bounding_boxes=True,
        )
        return tf.stack([begin[0], begin[1], extent[0], extent[1]])

    pixels = _cropped(encoded, shape, window)
    flip = tf.bitwise.bitwise_and(bits, tf.constant(1, tf.uint64)) == 1
    return tf.cond(flip, lambda: tf.reverse(pixels, [1]), lambda: pixels)


def _decoded(encoded: tf.Tensor, channels: int) -> tf.Tensor:
    return tf.io.decode_image(encoded, channels, expand_animations=False)


def _cropped(
    encoded: tf.Tensor, shape: Shape, window: Callable[[tf.Tensor], tf.Tensor]
) -> tf.Tensor:
    """The window, (top, left, height, width) of an image's size, resized to `shape`."""
    height, width, channels = shape

    def jpeg() -> tf.Tensor:
        crop = window(tf.io.extract_jpeg_shape(encoded))
        return tf.image.decode_and_crop_jpeg(encoded, crop, channels=channels)

    def other() -> tf.Tensor:
        pixels = _decoded(encoded, channels)
        top, left, rows, columns = tf.unstack(window(tf.shape(pixels)))
        return pixels[top : top + rows, left : left + columns]

    part = tf.cond(tf.io.is_jpeg(encoded), jpeg, other)
    # Weighted means of pixels: never outside of 0..255. The cast rounds down.
    resized = tf.cast(tf.image.resize(part, (height, width)) + 0.5, tf.uint8)
    return tf.ensure_shape(resized, shape)
