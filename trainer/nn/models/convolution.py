"""The convolution and the activation that the networks of this folder share."""

import keras

_EPSILON = 1e-5  # as Torch, which the papers' codes were written in; Keras' own default is 1e-3


def convolution(channels: int, size: int, stride: int, name: str) -> keras.layers.Conv2D:
    """size×size to `channels`, for a batch norm behind it: without bias.

    It starts as He normal over fan-out, not truncated (He et al. 2015, arXiv:1502.01852, eq. 14).
    """
    return keras.layers.Conv2D(
        channels,
        size,
        strides=stride,
        padding="same",
        use_bias=False,
        kernel_initializer=keras.initializers.VarianceScaling(
            scale=2.0, mode="fan_out", distribution="untruncated_normal"
        ),
        name=name,
    )


def activate(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """Batch norm and ReLU."""
    x = keras.layers.BatchNormalization(epsilon=_EPSILON, name=f"{name}_norm")(x)
    return keras.layers.ReLU(name=f"{name}_relu")(x)
