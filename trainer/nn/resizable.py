"""Lets a model take images of other sizes than the size for which it was built.

Convolutions and global pooling take images of any size. But Keras refuses images if their shape
differs from the Input of a functional model. So this module removes Keras' check, and instead
traces the model with images of each size.
"""

from collections.abc import Sequence

import keras
import tensorflow as tf

from trainer.errors import UserError
from trainer.nn.user_code import one_line

_TRIED = 2  # Number of images with which `accept_sizes` traces the model.
# Errors that Keras raises if layers do not fit the images.
_KERAS_RAISES = (ValueError, TypeError, IndexError)


def accept_sizes(name: str, model: keras.Model, sizes: Sequence[tuple[int, int]]) -> None:
    """Lets `model` take images of each of `sizes`, in pixels, in addition to its own size.

    Args:
      name: value of --model, for messages.
      model: a model from images uint8 [b, h, w, c] to logits.
      sizes: heights and widths of the images in training.

    Raises:
      UserError: if the model cannot compute logits for images of one of the sizes.
    """
    height, width, channels = model.input_shape[1:]
    others = [size for size in sizes if size != (height, width)]
    if not others:
        return
    for layer in model._flatten_layers():  # Submodels are layers, too.
        # A Sequential model computes with a functional model of its own.
        for part in (layer, getattr(layer, "_functional", None)):
            if isinstance(part, keras.Model) and getattr(part, "inputs", None):
                part.input_spec = None
    for size in others:
        # The batch size is fixed. So the shape of the logits shows whether a reshape moves pixels
        # into the batch axis.
        images = tf.TensorSpec((_TRIED, *size, channels), tf.uint8)
        try:
            # A symbolic call by Keras would not check a Dense layer's input. A trace checks it.
            function = tf.function(lambda x: model(x, training=False), autograph=False)
            logits = function.get_concrete_function(images)
        except Exception as error:
            if not isinstance(error, _KERAS_RAISES) and ":" not in name:
                raise  # An error in this program's models is a bug.
            raise _refusal(name, model, size, one_line(error)) from error
        shape = tuple(logits.output_shapes)
        if shape != (_TRIED, *model.output_shape[1:]):
            raise _refusal(name, model, size, f"from {_TRIED} images it makes shape {shape}")


def _refusal(name: str, model: keras.Model, size: tuple[int, int], reason: str) -> UserError:
    height, width = model.input_shape[1:3]
    return UserError(
        f"--model={name}, built for evaluations at {height}×{width} pixels, cannot train with "
        f"images of {size[0]}×{size[1]}: {reason}.\n"
        "Leave --image_sizes and --eval_image_size out, or use a model with global pooling, such "
        "as resnet_50."
    )
