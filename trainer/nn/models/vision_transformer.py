"""Vision transformers: the plain baseline of Beyer, Zhai & Kolesnikov 2022 (arXiv:2205.01580).

The network is by Dosovitskiy et al. 2021 (arXiv:2010.11929). Its size is B, or one of the smaller
sizes Ti and S of Touvron et al. 2021 (DeiT, arXiv:2012.12877). The baseline changes the network as
follows. The position embeddings are fixed sines and cosines in two dimensions (Chen et al. 2021,
MoCo v3, arXiv:2104.02057). The mean over all patches replaces the class token. Dropout is left out.
The head is one linear layer, which starts at zero. The baseline's paper finds such a head as good
as a head with a hidden layer.

Initial weights, the epsilon of layer norm and the approximate GELU are as in the authors' code,
big_vision. All layers and operations are Keras' own. Images may have another size than the size for
which the network was built. The same range of position embeddings then covers their patches.
"""

import dataclasses
import math

import keras
import numpy as np

from trainer.errors import UserError
from trainer.nn.stochastic_depth import joined, rates

_EPSILON = 1e-6  # Default of flax; Keras' default is 1e-3.
_TEMPERATURE = 10_000.0  # Ratio of the largest frequency of position embeddings to the smallest.
_EXPANSION = 4  # Ratio of the values per patch inside an MLP to `Size.width`.


@dataclasses.dataclass(frozen=True)
class Size:
    """Size of a transformer: values per patch, attention heads per block, and number of blocks."""

    width: int
    heads: int
    depth: int = 12


SIZES = {"ti": Size(192, 3), "s": Size(384, 6), "b": Size(768, 12)}


def vision_transformer(
    size: Size,
    patch: int,
    image_shape: tuple[int, int, int],
    classes: int,
    drop_path: float = 0.0,
) -> keras.Model:
    """Returns a transformer from float images [b, h, w, c] to float32 logits [b, classes].

    `patch` is the side length of a patch, in pixels. `drop_path` is the rate of stochastic depth in
    the last block; the rates of earlier blocks fall evenly to 0 in the first block. Pooling and
    logits are float32; other layers have Keras' current dtype policy.

    Raises:
        UserError: if `patch` does not divide both the height and the width of the images.
    """
    check_divides(patch, *image_shape[:2])
    images = keras.Input(image_shape)
    x = keras.layers.Conv2D(
        size.width, patch, patch, kernel_initializer="lecun_normal", name="embedding"
    )(images)  # [b, h/patch, w/patch, width]
    x = keras.ops.add(x, keras.ops.cast(_position_embeddings(x, size.width), x.dtype))
    x = keras.layers.Reshape((-1, size.width), name="patches")(x)  # [b, patches, width]
    for number, rate in enumerate(rates(drop_path, size.depth)):
        x = _block(x, size, number, rate)
    x = _norm("last_norm")(x)
    x = keras.layers.GlobalAveragePooling1D(dtype="float32", name="pool")(x)  # [b, width]
    logits = keras.layers.Dense(
        classes, kernel_initializer="zeros", dtype="float32", name="logits"
    )(x)
    return keras.Model(images, logits, name="vision_transformer")


def check_divides(patch: int, h: int, w: int) -> None:
    """Refuses images of h × w pixels if `patch`, in pixels, does not divide both h and w."""
    if h % patch or w % patch:
        sides = math.gcd(h, w)
        fitting = [str(side) for side in range(2, sides + 1) if sides % side == 0]
        below = max(1, min(h, w) // patch) * patch
        patches = f"a patch of {' or '.join(fitting)}, or " if fitting else ""
        raise UserError(
            f"patches of {patch}×{patch} pixels do not divide images of {h}×{w}.\n"
            f"Use {patches}images of another size, such as {below} or {below + patch}."
        )


def _position_embeddings(x: keras.KerasTensor, width: int) -> keras.KerasTensor:
    """Returns the position embeddings of the patches of x, float32 [1, h, w, width].

    x is [b, h, w, width], with h rows and w columns of patches. The embedding of a patch has four
    equal parts: sin(column ω), cos(column ω), sin(row ω) and cos(row ω). The frequencies ω fall
    geometrically from 1 to 1 / 10,000. The network may be called on images with n rows of patches
    in place of h. Then row i gets the embedding of row (i + ½) h/n − ½, which covers the same part
    of the image. Columns are treated in the same way.
    """
    quarter = width // 4
    frequencies = _TEMPERATURE ** (-np.arange(quarter) / (quarter - 1))
    frequencies = frequencies.astype(np.float32)
    ones = keras.ops.ones_like(x[:1, :, :, :1], dtype="float32")
    parts = []
    for axis in (2, 1):
        count = keras.ops.sum(ones, axis=axis, keepdims=True)
        centres = (keras.ops.cumsum(ones, axis=axis) - 0.5) * (x.shape[axis] / count)
        angles = (centres - 0.5) * frequencies
        parts += [keras.ops.sin(angles), keras.ops.cos(angles)]
    return keras.ops.concatenate(parts, axis=-1)


def _block(x: keras.KerasTensor, size: Size, number: int, rate: float) -> keras.KerasTensor:
    """Returns x after attention and an MLP; each has a layer norm before it, and a shortcut."""
    name = f"block{number + 1}"
    y = _attention(_norm(f"{name}_norm1")(x), size, name)
    x = joined(x, y, rate, 2 * number, f"{name}_add1")
    y = _mlp(_norm(f"{name}_norm2")(x), size, name)
    return joined(x, y, rate, 2 * number + 1, f"{name}_add2")


def _attention(x: keras.KerasTensor, size: Size, name: str) -> keras.KerasTensor:
    """Returns the self-attention of x [b, patches, width]; its softmax is float32."""
    heads = (-1, size.heads, size.width // size.heads)
    query, key, value = (
        keras.layers.Reshape(heads, name=f"{name}_{part}_heads")(
            keras.layers.Dense(size.width, name=f"{name}_{part}")(x)
        )
        for part in ("query", "key", "value")
    )
    y = keras.ops.dot_product_attention(query, key, value)  # [b, patches, heads, width / heads]
    y = keras.layers.Reshape((-1, size.width), name=f"{name}_joined")(y)
    return keras.layers.Dense(size.width, name=f"{name}_projection")(y)


def _mlp(x: keras.KerasTensor, size: Size, name: str) -> keras.KerasTensor:
    biases = keras.initializers.RandomNormal(stddev=1e-6)
    inside = keras.layers.Dense(
        _EXPANSION * size.width, bias_initializer=biases, name=f"{name}_mlp1"
    )(x)
    inside = keras.ops.gelu(inside, approximate=True)
    biases = keras.initializers.RandomNormal(stddev=1e-6)
    return keras.layers.Dense(size.width, bias_initializer=biases, name=f"{name}_mlp2")(inside)


def _norm(name: str) -> keras.layers.LayerNormalization:
    return keras.layers.LayerNormalization(epsilon=_EPSILON, name=name)
