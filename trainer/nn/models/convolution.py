"""The convolution, the normalisation and the activation that this folder's networks share."""

import keras

_EPSILON = 1e-5  # as Torch, which the papers' codes were written in; Keras' own default is 1e-3


def convolution(
    channels: int, size: int, stride: int, name: str, *, padding: str = "same"
) -> keras.layers.Conv2D:
    """size×size to `channels`, for a batch norm behind it: without bias.

    It starts as He normal over fan-out, not truncated (He et al. 2015, arXiv:1502.01852, eq. 14).
    `padding` is Keras' own: same, or valid.
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
    """Batch norm, its γ at `gamma` to start with."""
    start = keras.initializers.Constant(gamma)
    return keras.layers.BatchNormalization(
        epsilon=_EPSILON, gamma_initializer=start, name=f"{name}_norm"
    )(x)


def activate(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """Batch norm and ReLU."""
    return keras.layers.ReLU(name=f"{name}_relu")(normalize(x, name))
