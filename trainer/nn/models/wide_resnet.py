"""Wide residual networks, WRN-depth-width: Zagoruyko & Komodakis 2016, arXiv:1605.07146.

The network has three groups of n blocks. For width k, the groups have 16k, 32k and 64k channels. A
block has two 3×3 convolutions, and a batch norm and a ReLU come before each convolution. The depth
is 6n + 4: the first convolution, the 6n convolutions of blocks, and a shortcut convolution in each
group. If k = 1, the first group does not have a shortcut convolution, but the depth is still called
6n + 4.
"""

import keras

from trainer.nn.models.convolution import activate, convolution

_FIRST_CHANNELS = 16


def wide_resnet(
    depth: int, width: int, image_shape: tuple[int, int, int], classes: int
) -> keras.Model:
    """Returns WRN-depth-width from float images [b, h, w, c] to float32 logits [b, classes].

    The depth is 6n + 4 with n ≥ 1 (`names.check_sizes`).

    Global average pooling and logits are float32; other layers have Keras' current dtype policy.
    The initial kernels of convolutions are as in the authors' code. The Dense layer has Keras'
    default initializer.
    """
    blocks = (depth - 4) // 6
    images = keras.Input(image_shape)
    x = convolution(_FIRST_CHANNELS, 3, 1, "conv")(images)  # [b, h, w, 16]
    for group, stride in enumerate((1, 2, 2)):
        channels = _FIRST_CHANNELS * width * 2**group
        for block in range(blocks):
            name = f"group{group + 1}_block{block + 1}"
            x = _block(x, channels, stride if block == 0 else 1, name)
    x = activate(x, "last")  # [b, h/4, w/4, 64k]
    x = keras.layers.GlobalAveragePooling2D(dtype="float32", name="pool")(x)  # [b, 64k]
    logits = keras.layers.Dense(classes, dtype="float32", name="logits")(x)
    return keras.Model(images, logits, name=f"wide_resnet_{depth}_{width}")


def _block(x: keras.KerasTensor, channels: int, stride: int, name: str) -> keras.KerasTensor:
    active = activate(x, f"{name}_1")
    if stride != 1 or x.shape[-1] != channels:
        # As in the authors' code, the shortcut convolution comes after the batch norm and ReLU.
        x = convolution(channels, 1, stride, f"{name}_shortcut")(active)
    y = convolution(channels, 3, stride, f"{name}_conv1")(active)
    y = convolution(channels, 3, 1, f"{name}_conv2")(activate(y, f"{name}_2"))
    return keras.layers.Add(name=f"{name}_add")([x, y])
