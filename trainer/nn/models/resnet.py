"""Residual network for large images: ResNet-50, He et al. 2016, arXiv:1512.03385, table 1.

This is the variant v1.5: in a bottleneck block that halves the image, the 3×3 convolution has the
stride of 2. The initial weights are as in Goyal et al. 2017 (arXiv:1706.02677), section 5.1. The
last batch norm of a block starts with γ = 0, so that the block starts as its shortcut alone. The
initial kernel of the dense layer is normal with standard deviation 0.01.

Strided layers pad both sides equally, as in Torch, so that torchvision's resnet50 weights give the
same outputs here. TensorFlow's padding "same" would pad the two sides of an even image unequally:
by 0 and 1 pixels for a 3×3 kernel, and by 2 and 3 pixels for a 7×7 kernel.
"""

import keras

from trainer.nn.models.convolution import activate, convolution, normalize
from trainer.nn.stochastic_depth import joined, rates

_STAGES = [(64, 3), (128, 4), (256, 6), (512, 3)]  # (channels inside a block, number of blocks)
_EXPANSION = 4  # Ratio of a block's output channels to the channels inside the block.


def resnet_50(
    image_shape: tuple[int, int, int], classes: int, drop_path: float = 0.0
) -> keras.Model:
    """Returns ResNet-50 v1.5 from float images [b, h, w, c] to float32 logits [b, classes].

    The papers use images of 224×224 pixels. The last stage returns h/32 × w/32 values per channel,
    rounded up. Global average pooling and logits are float32; all other layers have Keras' current
    dtype policy. `drop_path` is the rate of stochastic depth in the last block; the rates of
    earlier blocks fall evenly to 0 in the first block.
    """
    images = keras.Input(image_shape)
    x = _padded(images, 3, "stem")
    x = convolution(64, 7, 2, "stem_conv", padding="valid")(x)  # [b, h/2, w/2, 64]
    # After a ReLU, padding by zeros does not change a maximum.
    x = _padded(activate(x, "stem"), 1, "pool")
    x = keras.layers.MaxPooling2D(3, strides=2, name="stem_pool")(x)  # [b, h/4, w/4, 64]
    dropped = enumerate(rates(drop_path, sum(blocks for _, blocks in _STAGES)))
    for stage, (channels, blocks) in enumerate(_STAGES, start=1):
        for block in range(1, blocks + 1):
            stride = 2 if stage > 1 and block == 1 else 1
            x = _bottleneck(x, channels, stride, next(dropped), f"stage{stage}_block{block}")
    x = keras.layers.GlobalAveragePooling2D(dtype="float32", name="pool")(x)  # [b, 2048]
    start = keras.initializers.RandomNormal(stddev=0.01)
    logits = keras.layers.Dense(classes, kernel_initializer=start, dtype="float32", name="logits")
    return keras.Model(images, logits(x), name="resnet_50")


def _bottleneck(
    x: keras.KerasTensor, channels: int, stride: int, dropped: tuple[int, float], name: str
) -> keras.KerasTensor:
    """Returns x after a block; `dropped` is the block's index and its rate of stochastic depth."""
    number, rate = dropped
    shortcut, leaving = x, _EXPANSION * channels
    if x.shape[-1] != leaving:  # This is the first block of a stage.
        shortcut = convolution(leaving, 1, stride, f"{name}_shortcut_conv")(x)
        shortcut = normalize(shortcut, f"{name}_shortcut")
    y = activate(convolution(channels, 1, 1, f"{name}_conv1")(x), f"{name}_1")
    if stride == 1:
        y = convolution(channels, 3, 1, f"{name}_conv2")(y)
    else:
        y = convolution(channels, 3, stride, f"{name}_conv2", padding="valid")(_padded(y, 1, name))
    y = convolution(leaving, 1, 1, f"{name}_conv3")(activate(y, f"{name}_2"))
    y = normalize(y, f"{name}_3", gamma=0.0)
    y = joined(shortcut, y, rate, number, f"{name}_add")  # [b, h/stride, w/stride, leaving]
    return keras.layers.ReLU(name=f"{name}_relu")(y)


def _padded(x: keras.KerasTensor, pixels: int, name: str) -> keras.KerasTensor:
    """Returns x with `pixels` rows or columns of zeros added on each side."""
    return keras.layers.ZeroPadding2D(pixels, name=f"{name}_padding")(x)
