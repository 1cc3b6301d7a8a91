"""Decodes a picture (JPEG, PNG, WebP, BMP or GIF), crops it, and resizes it to the model's size.

A JPEG is cropped while it is decoded, so that the decoder skips the blocks outside of the crop.
Whole images are resized with antialiasing. Crops are resized without it, because antialiasing would
take as long as decoding the crops.

A picture may be stored sideways. The crop is then chosen in the upright picture, but only the
resized result is turned, because it is small. The number of pixels is checked before decoding.
"""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from trainer.config import augment_list
from trainer.data import exif, pillow_decoding

Shape = tuple[int, int, int]
# Maps the shape of an image, int32 [3], to a crop, int32 [4]: top, left, height, width.
Window = Callable[[tf.Tensor], tf.Tensor]
# Decodes a file that is neither JPEG nor PNG. The function maps the file's bytes [], the number of
# channels and the limit of pixels to an image, uint8 [h, w, channels].
Others = Callable[[tf.Tensor, int, int], tf.Tensor]

# Pillow refuses larger images by default: about 13,000 × 13,000 pixels, half a gigabyte of RGB.
MAX_PIXELS = 178_956_970
# Szegedy et al. 2015 (arXiv:1409.4842), §6: 8% to 100% of the area, width / height from 3/4 to 4/3.
CROP_AREA = (0.08, 1.0)
CROP_ASPECT = (3 / 4, 4 / 3)
# Attempts to find a crop that fits. If all fail, the crop is the whole image. This happens once in
# 10⁴ crops of an image with sides 3:4.
_ATTEMPTS = 10
TOO_MANY_PIXELS = "too many pixels"  # Text in the error about an image with too many pixels.
CENTRAL = 0.875  # Side of the central crop / shorter side of the image, such as 224 / 256.
# Steps that turn an image upright. Rows and columns are swapped first if the EXIF orientation is 5
# or more. Then the rows are reversed if _ROWS_REVERSED[orientation] is True, and the columns if
# _COLUMNS_REVERSED[orientation] is True. Orientation 0 does not occur.
_SWAPPED = 5
_ROWS_REVERSED = (False, False, False, True, True, False, False, True, True)
_COLUMNS_REVERSED = (False, False, True, True, False, False, True, True, False)


def by_pillow(encoded: tf.Tensor, channels: int, max_pixels: int) -> tf.Tensor:
    """Decodes a GIF, BMP or WebP file with Pillow; a SavedModel cannot hold this Python code."""

    def decode(data: bytes | np.ndarray) -> np.ndarray:
        # In eager calls, TensorFlow passes an array of one string.
        content = data.item() if isinstance(data, np.ndarray) else data
        return pillow_decoding.pixels(content, channels, max_pixels)

    pixels = tf.numpy_function(decode, [encoded], tf.uint8, stateful=False)
    return tf.ensure_shape(pixels, [None, None, channels])


def for_evaluation(augment: str) -> Callable[..., tf.Tensor]:
    """Returns `central_crop` if the run's --augment, `augment`, has `imagenet`; else `whole`."""
    return central_crop if augment_list.parse(augment).resized_crop else whole


def whole(
    encoded: tf.Tensor,
    shape: Shape,
    orientation: tf.Tensor | None = None,
    max_pixels: int | None = MAX_PIXELS,
    others: Others = by_pillow,
) -> tf.Tensor:
    """Decodes the whole image and stretches it to `shape`: uint8 [h, w, c].

    Args:
        encoded: a file's bytes.
        shape: (h, w, c).
        orientation: result of `exif.orientation`, int32 []; None for an upright image. The value 1
            also means upright, but takes more time than None.
        max_pixels: largest number of pixels; a larger image is an error. None: no check.
        others: decodes formats other than JPEG and PNG; not used if `max_pixels` is None.
    """
    height, width, channels = shape
    pixels = _decoded(encoded, channels, max_pixels, others)

    if orientation is None:
        same = tf.reduce_all(tf.equal(tf.shape(pixels), shape))
        upright = tf.cond(same, lambda: pixels, lambda: resized(pixels, (height, width)))
    else:
        stored = resized(pixels, _stored_size((height, width), orientation))
        upright = _turned(stored, orientation)
    return tf.ensure_shape(upright, shape)


def resized(pixels: tf.Tensor, size: tf.Tensor | tuple[int, int]) -> tf.Tensor:
    """Resizes images uint8 [..., h, w, c] to `size`, (height, width), with antialiasing."""
    return tf.saturate_cast(tf.round(tf.image.resize(pixels, size, antialias=True)), tf.uint8)


def central_crop(
    encoded: tf.Tensor,
    shape: Shape,
    orientation: tf.Tensor | None = None,
    max_pixels: int = MAX_PIXELS,
    others: Others = by_pillow,
) -> tf.Tensor:
    """Crops a central square and resizes it: uint8 [h, w, c].

    The square's side is 87.5% of the image's shorter side. The arguments are as in `whole`.
    """

    def window(size: tf.Tensor) -> tf.Tensor:
        shorter = tf.cast(tf.reduce_min(size[:2]), tf.float32)
        side = tf.maximum(1, tf.cast(tf.round(CENTRAL * shorter), tf.int32))
        top, left = (size[0] - side) // 2, (size[1] - side) // 2
        return tf.stack([top, left, side, side])

    return _cropped(encoded, shape, window, orientation, max_pixels, others)


def random_crop(
    encoded: tf.Tensor,
    bits: tf.Tensor,
    shape: Shape,
    orientation: tf.Tensor | None = None,
    max_pixels: int = MAX_PIXELS,
) -> tf.Tensor:
    """Crops a random window, resizes it, and mirrors it with probability ½: uint8 [h, w, c].

    The window is drawn as in Szegedy et al. 2015, §6. It depends on the size of the upright image
    and on `bits`, uint64 [], the image's random bits. The other arguments are as in `whole`.
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

    pixels = _cropped(encoded, shape, window, orientation, max_pixels)
    flip = tf.bitwise.bitwise_and(bits, tf.constant(1, tf.uint64)) == 1
    return tf.cond(flip, lambda: tf.reverse(pixels, [1]), lambda: pixels)


def _decoded(
    encoded: tf.Tensor, channels: int, max_pixels: int | None, others: Others
) -> tf.Tensor:
    if max_pixels is None:
        return tf.io.decode_image(encoded, channels, expand_animations=False)

    def jpeg() -> tf.Tensor:
        with tf.control_dependencies([_bounded(tf.io.extract_jpeg_shape(encoded), max_pixels)]):
            return tf.io.decode_jpeg(encoded, channels)

    return tf.cond(
        tf.io.is_jpeg(encoded), jpeg, lambda: _decoded_other(encoded, channels, max_pixels, others)
    )


def _decoded_other(encoded: tf.Tensor, channels: int, max_pixels: int, others: Others) -> tf.Tensor:
    """Decodes a PNG with TensorFlow, and all formats except PNG and JPEG with `others`."""

    def png() -> tf.Tensor:
        header = tf.io.decode_raw(tf.strings.substr(encoded, 16, 8), tf.uint8)  # [8]
        digits = tf.reshape(tf.cast(header, tf.int64), [2, 4])
        size = tf.reduce_sum(digits * [2**24, 2**16, 2**8, 1], axis=1)  # width, height
        with tf.control_dependencies([_bounded(size, max_pixels)]):
            return tf.io.decode_png(encoded, channels)

    is_png = tf.equal(tf.strings.substr(encoded, 0, 8), exif.PNG)
    return tf.cond(is_png, png, lambda: others(encoded, channels, max_pixels))


def _bounded(size: tf.Tensor, max_pixels: int) -> tf.Operation:
    """Returns an operation that fails if an image of size[0] × size[1] has too many pixels."""
    height, width = tf.unstack(tf.cast(size[:2], tf.int64))
    # Each side is checked too, because the product of two sides near 2³² overflows int64.
    small = (height <= max_pixels) & (width <= max_pixels) & (height * width <= max_pixels)
    return tf.debugging.Assert(small, [TOO_MANY_PIXELS, size])


def _cropped(
    encoded: tf.Tensor,
    shape: Shape,
    window: Window,
    orientation: tf.Tensor | None,
    max_pixels: int,
    others: Others = by_pillow,
) -> tf.Tensor:
    """Crops the `window` of the upright image and resizes it to `shape`: uint8 [h, w, c]."""
    height, width, channels = shape

    def part(window: Window) -> tf.Tensor:
        def jpeg() -> tf.Tensor:
            size = tf.io.extract_jpeg_shape(encoded)
            with tf.control_dependencies([_bounded(size, max_pixels)]):
                crop = window(size)
            return tf.image.decode_and_crop_jpeg(encoded, crop, channels=channels)

        def other() -> tf.Tensor:
            pixels = _decoded_other(encoded, channels, max_pixels, others)
            top, left, rows, columns = tf.unstack(window(tf.shape(pixels)))
            return pixels[top : top + rows, left : left + columns]

        return tf.cond(tf.io.is_jpeg(encoded), jpeg, other)

    def bilinear(pixels: tf.Tensor, size: tf.Tensor | tuple[int, int]) -> tf.Tensor:
        # Weighted means of pixels stay within 0 to 255. The cast rounds down, so 0.5 is added.
        return tf.cast(tf.image.resize(pixels, size) + 0.5, tf.uint8)

    if orientation is None:
        upright = bilinear(part(window), (height, width))
    else:
        stored = part(lambda size: _in_stored(window, size, orientation))
        size = _stored_size((height, width), orientation)
        upright = _turned(bilinear(stored, size), orientation)
    return tf.ensure_shape(upright, shape)


def _stored_size(upright: tuple[int, int], orientation: tf.Tensor) -> tf.Tensor:
    """Returns the stored (height, width) of an image; its upright (height, width) is `upright`."""
    height, width = upright
    return tf.where(orientation >= _SWAPPED, [width, height], [height, width])


def _turned(pixels: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turns a stored image [h, w, c] upright by its EXIF orientation."""
    pixels = tf.cond(
        orientation >= _SWAPPED, lambda: tf.transpose(pixels, [1, 0, 2]), lambda: pixels
    )
    count = tf.shape(pixels)[0]
    rows = tf.range(count)
    reversed_rows = tf.gather(_ROWS_REVERSED, orientation)
    # To reverse rows, this gather takes a fifth of the time of tf.reverse.
    pixels = tf.gather(pixels, tf.where(reversed_rows, count - 1 - rows, rows))
    reversed_columns = tf.gather(_COLUMNS_REVERSED, orientation)
    return tf.cond(reversed_columns, lambda: tf.reverse(pixels, [1]), lambda: pixels)


def _in_stored(window: Window, size: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Returns the `window` of the upright image, in coordinates of the stored image.

    `size` is the shape of the stored image, int32 [3].
    """
    swapped = orientation >= _SWAPPED
    upright = tf.where(swapped, tf.gather(size, [1, 0, 2]), size)
    top, left, rows, columns = tf.unstack(window(upright))
    top = tf.where(tf.gather(_ROWS_REVERSED, orientation), upright[0] - top - rows, top)
    left = tf.where(tf.gather(_COLUMNS_REVERSED, orientation), upright[1] - left - columns, left)
    return tf.where(
        swapped, tf.stack([left, top, columns, rows]), tf.stack([top, left, rows, columns])
    )
