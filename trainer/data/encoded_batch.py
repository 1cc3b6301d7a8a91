"""Decodes a batch of encoded pictures as evaluation does, with TensorFlow's operations alone.

A SavedModel can hold only TensorFlow operations, so this decoder reads only JPEG and PNG. Training
decodes other formats with Pillow, but this decoder raises an error for them.
"""

from collections.abc import Callable

import tensorflow as tf

from trainer.data import decode, exif_graph
from trainer.data.exif import UPRIGHT


def decoder(
    shape: tuple[int, int, int], augment: str, max_pixels: int
) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns a function that decodes n JPEG or PNG files of any size.

    The function maps the files' bytes [n] to images, uint8 [n, h, w, c]. It raises an
    InvalidArgumentError if a file is damaged, has another format, or has too many pixels.

    Args:
        shape: (h, w, c) of the images.
        augment: the run's --augment; if it has `imagenet`, the function crops the central square.
        max_pixels: largest number of pixels of a picture that is decoded.
    """
    part = decode.for_evaluation(augment)

    def one(encoded: tf.Tensor) -> tf.Tensor:
        orientation = exif_graph.orientation(encoded)
        # As in evaluation, upright pictures are decoded without an orientation, which is faster.
        return tf.cond(
            tf.equal(orientation, UPRIGHT),
            lambda: part(encoded, shape, None, max_pixels, _refused),
            lambda: part(encoded, shape, orientation, max_pixels, _refused),
        )

    image = tf.TensorSpec(shape, tf.uint8)
    return lambda encoded: tf.map_fn(one, encoded, fn_output_signature=image)


def _refused(encoded: tf.Tensor, channels: int, max_pixels: int) -> tf.Tensor:
    """Fails, because the file is neither a JPEG nor a PNG."""
    del encoded, max_pixels
    with tf.control_dependencies([tf.debugging.Assert(False, ["neither a JPEG nor a PNG file"])]):
        return tf.zeros([1, 1, channels], tf.uint8)
