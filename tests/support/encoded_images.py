"""Encoded images, and the functions of trainer/data/decode.py that decode them."""

import io

import numpy as np
import tensorflow as tf
from PIL import Image

from trainer.data.decode import central_crop, random_crop, whole
from trainer.data.pillow_decoding import UndecodableError

# In a graph, TensorFlow turns an UndecodableError into an InvalidArgumentError.
ERRORS = (tf.errors.InvalidArgumentError, UndecodableError)
SHAPE = (24, 30, 3)
BITS = tf.constant(987654321, tf.uint64)
DECODERS = {
    "whole": lambda data, orientation: whole(data, SHAPE, orientation),
    "central": lambda data, orientation: central_crop(data, SHAPE, orientation),
    "random": lambda data, orientation: random_crop(data, BITS, SHAPE, orientation),
}


def encoded(pixels: np.ndarray | Image.Image, kind: str, **options) -> bytes:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def patches() -> np.ndarray:
    """A 60 × 80 image of 48 flat squares of random colours."""
    colours = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    return np.kron(colours, np.ones((10, 10, 1), np.uint8))
