"""Builds plain networks: stages of 3×3 convolutions, without shortcuts, and pooling between stages.

A batch norm and a ReLU follow each convolution. `vgg_16` is configuration D of Simonyan & Zisserman
2015 (arXiv:1409.1556, table 1), adapted to small images: its 13 convolutions have batch norms, and
one dense layer replaces the paper's three. `plain_9` has nine convolutions in three stages.

The networks map float images [b, h, w, c] to float32 logits [b, classes]. Flattening, global
pooling and logits are float32; other layers have Keras' current dtype policy. The Dense layer has
Keras' default initializer.
"""

import keras

from trainer.nn.models.convolution import activate, convolution

ImageShape = tuple[int, int, int]

# Each stage is (channels, convolutions).
_VGG_STAGES = [(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)]
_PLAIN_STAGES = [(64, 3), (128, 3), (256, 3)]


def vgg_16(image_shape: ImageShape, classes: int) -> keras.Model:
    """Returns VGG-16: max pooling by 2 after each stage, then Dense on h/32 × w/32 × 512 values."""
    x = images = keras.Input(image_shape)
    for number, (channels, convolutions) in enumerate(_VGG_STAGES, start=1):
        x = _stage(x, channels, convolutions, f"stage{number}")
        # Padding "same" rounds an odd size up: 28 pixels become 14, 7, 4, 2 and 1.
        x = keras.layers.MaxPooling2D(2, padding="same", name=f"stage{number}_pool")(x)
    x = keras.layers.Flatten(dtype="float32", name="flat")(x)  # [b, 512] for images of up to 32×32
    return _classifier(images, x, classes, "vgg_16")


def plain_9(image_shape: ImageShape, classes: int) -> keras.Model:
    """Returns plain-9: average pooling by 2 between stages, then global average pooling."""
    x = images = keras.Input(image_shape)
    for number, (channels, convolutions) in enumerate(_PLAIN_STAGES, start=1):
        if number > 1:
            x = keras.layers.AveragePooling2D(2, padding="same", name=f"stage{number}_pool")(x)
        x = _stage(x, channels, convolutions, f"stage{number}")
    x = keras.layers.GlobalAveragePooling2D(dtype="float32", name="pool")(x)  # [b, 256]
    return _classifier(images, x, classes, "plain_9")


def _stage(x: keras.KerasTensor, channels: int, convolutions: int, name: str) -> keras.KerasTensor:
    for number in range(1, convolutions + 1):
        x = convolution(channels, 3, 1, f"{name}_conv{number}")(x)
        x = activate(x, f"{name}_{number}")
    return x


def _classifier(
    images: keras.KerasTensor, x: keras.KerasTensor, classes: int, name: str
) -> keras.Model:
    logits = keras.layers.Dense(classes, dtype="float32", name="logits")(x)
    return keras.Model(images, logits, name=name)
