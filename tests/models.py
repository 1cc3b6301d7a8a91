"""Models for tests, given to the program as --model=tests.models:<name>."""

import keras


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


def smooth(image_shape: tuple[int, int, int], classes: int) -> keras.Model:
    """Without kinks, at which a rounding error becomes a thousand times larger."""
    return tiny(image_shape, classes, "softplus")


def softmax(image_shape: tuple[int, int, int], classes: int) -> keras.Model:
    """A model that does not return logits."""
    model = tiny(image_shape, classes)
    model.add(keras.layers.Softmax())
    return model


nothing = None


def overflowing(image_shape: tuple[int, int, int], classes: int) -> keras.Model:
    """Its activations are numbers, and their variance is none: batch norm makes zeros of them."""
    model = tiny(image_shape, classes)
    return keras.Sequential([keras.Input(image_shape), keras.layers.Rescaling(1e20), *model.layers])
