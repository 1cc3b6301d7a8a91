"""Convolution, batch norm and ReLU that the convolutional networks in this folder share."""

import keras

_EPSILON = 1e-5  # Torch's default, as in the code of the networks' papers; Keras' default is 1e-3.


def convolution(
    channels: int, size: int, stride: int, name: str, *, padding: str = "same"
) -> keras.layers.Conv2D:
    """Returns a size×size convolution. It has no bias, because a batch norm would cancel it.

    The initial kernel is normal with the variance of He et al. 2015 (arXiv:1502.01852, eq. 14): 2
    divided by fan-out. The distribution is not truncated. `padding` is "same" or "valid", as in
    Keras.
    """
    return keras.layers.Conv2D(
        channels,
        size,
        strides=stride,
        padding=padding,
        use_bias=False,
        kernel_initializer=keras.initializers.VarianceScaling(
            scale=2.0, mode="fan_out", distribution="untruncated_normal"
        ),
        name=name,
    )


def normalize(x: keras.KerasTensor, name: str, *, gamma: float = 1.0) -> keras.KerasTensor:
    """Returns the batch norm of x; the initial value of the batch norm's scale γ is `gamma`."""
    start = keras.initializers.Constant(gamma)
    return keras.layers.BatchNormalization(
        epsilon=_EPSILON, gamma_initializer=start, name=f"{name}_norm"
    )(x)


def activate(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """Returns the ReLU of the batch norm of x."""
    return keras.layers.ReLU(name=f"{name}_relu")(normalize(x, name))
