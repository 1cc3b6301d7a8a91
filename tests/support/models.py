"""Models for tests, given to the program as --model=tests.support.models:<name>."""

import resource
import time

import keras
import numpy as np
import tensorflow as tf


def tiny(image_shape: tuple[int, int, int], classes: int, activation: str = "relu") -> keras.Model:
    """A strided convolution with batch norm: 28×28 images at 40,000 a second."""
    return keras.Sequential(
        [
            keras.Input(image_shape),
            keras.layers.Conv2D(8, 5, strides=4, use_bias=False),
            keras.layers.BatchNormalization(),
            keras.layers.Activation(activation),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(classes),
        ]
    )


def normalizing(image_shape: tuple[int, int, int], classes: int) -> keras.Model:
    """A model of pixels 0 to 255 whose Normalization has mean 0 and variance 1 until it adapts."""
    network = tiny(image_shape, classes)
    return keras.Sequential([keras.Input(image_shape), keras.layers.Normalization(), network])


def smooth(image_shape: tuple[int, int, int], classes: int) -> keras.Model:
    """Without kinks, at which a rounding error becomes a thousand times larger."""
    return tiny(image_shape, classes, "softplus")


def reshaping(image_shape: tuple[int, int, int], classes: int) -> keras.Model:
    """A model that makes more rows of features of larger images, as if there were more images."""
    h, w, c = image_shape
    images = keras.Input(image_shape)
    features = keras.ops.reshape(images, (-1, h * w * c))
    return keras.Model(images, keras.layers.Dense(classes)(features))


class Asserting(keras.layers.Layer):
    """Takes images of one width."""

    def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
        assert x.shape[2] == 16, "rows of 16 pixels only"
        return x


def asserting(image_shape: tuple[int, int, int], classes: int) -> keras.Model:
    """`tiny`, whose own layer refuses other images than those of 16 pixels by an assertion."""
    model = tiny(image_shape, classes)
    return keras.Sequential([keras.Input(image_shape), Asserting(), *model.layers])


def softmax(image_shape: tuple[int, int, int], classes: int) -> keras.Model:
    """A model that does not return logits."""
    model = tiny(image_shape, classes)
    model.add(keras.layers.Softmax())
    return model


@keras.saving.register_keras_serializable(package="tests")
class Double(keras.layers.Layer):
    """A layer that is not Keras' own, which a Keras file names."""

    def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
        return 2 * x


class Subclassed(keras.Model):
    """Keras cannot save it, for want of get_config, and it trains unless it is told not to."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.layer = keras.layers.Dense(classes)
        self.norm = keras.layers.BatchNormalization()

    def call(self, x: keras.KerasTensor, training: bool = True) -> keras.KerasTensor:
        return self.layer(self.norm(keras.ops.mean(x, axis=(1, 2)), training=training))


def with_a_layer_of_its_own(image_shape: tuple[int, int, int], classes: int) -> keras.Model:
    """Model that loads only if this module is imported, because of its layer."""
    model = tiny(image_shape, classes)
    model.add(Double())
    return model


def subclassed(image_shape: tuple[int, int, int], classes: int) -> keras.Model:
    """Model that Keras cannot save, so that only a SavedModel is exported."""
    return Subclassed(classes)


nothing = None


def overflowing(image_shape: tuple[int, int, int], classes: int) -> keras.Model:
    """Its activations are numbers, and their variance is none: batch norm makes zeros of them."""
    model = tiny(image_shape, classes)
    return keras.Sequential([keras.Input(image_shape), keras.layers.Rescaling(1e20), *model.layers])


class Needs(keras.layers.Layer):
    """Passes examples on, after a twentieth of a second: with more at once, each takes less.

    For more than `most` at once it asks for 10¹⁵ bytes. It asks in Python, which refuses at once:
    TensorFlow's allocator, which `hungry` exhausts, waits ten seconds for what others may free.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        def zero(examples: tf.Tensor) -> float:
            time.sleep(0.05)
            return float(np.zeros(10**15 if examples > self.most else 1, np.uint8)[0])

        return inputs + tf.ensure_shape(
            tf.py_function(zero, [tf.shape(inputs)[0]], inputs.dtype), []
        )


def huge(image_shape: tuple[int, int, int], classes: int, most: int = 64) -> keras.Model:
    """No memory anywhere is enough for more than `most` examples at once."""
    layers = tiny(image_shape, classes).layers
    return keras.Sequential([keras.Input(image_shape), Needs(most), *layers])


def hungry(image_shape: tuple[int, int, int], classes: int) -> keras.Model:
    """5 MB an example and hardly any work; with it, the process may take 1.5 GB more."""
    with open("/proc/self/statm") as statm:
        taken = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + 1_500_000_000, resource.RLIM_INFINITY))
    return keras.Sequential(
        [
            keras.Input(image_shape),
            keras.layers.Conv2D(1, 1),
            keras.layers.UpSampling2D(12),
            *(keras.layers.Activation("elu") for _ in range(12)),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(classes),
        ]
    )
