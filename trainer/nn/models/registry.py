"""Builds a model by its name: a Keras model from raw images to float32 logits.

A name is `wide_resnet_<depth>_<width>`, `vit_<ti|s|b>_<patch>`, `resnet_50`, `vgg_16`, `plain_9` or
`inception_resnet_v2`. Constructors in keras.applications are names, too, as Keras spells them. The
name `module:function` stands for a function of the user, and `python:model` for the model that a
Python program has given.

The model standardises its images itself, in the same way in training, evaluation and export. It
then calls the network, which computes the logits. If the network has an integer Input, or a
Rescaling or Normalization layer of its own, it gets pixel values 0 to 255 without standardisation.
All batch normalization becomes ghost batch normalization (ghost_batch_norm.py).
"""

import contextlib
import dataclasses
import difflib
import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from trainer.errors import UserError
from trainer.nn import model_checks
from trainer.nn.ghost_batch_norm import Kernel
from trainer.nn.ghostify import ghostify
from trainer.nn.models import application, names, user_function
from trainer.nn.models.plain import plain_9, vgg_16
from trainer.nn.models.resnet import resnet_50
from trainer.nn.models.vision_transformer import SIZES, check_divides, vision_transformer
from trainer.nn.models.wide_resnet import wide_resnet
from trainer.nn.resizable import accept_sizes
from trainer.nn.seeds import keras_seed
from trainer.nn.user_code import explain_refusal

ImageShape = tuple[int, int, int]

_OWN = {names.RESNET_50: resnet_50, names.VGG_16: vgg_16, names.PLAIN_9: plain_9}


@dataclasses.dataclass(frozen=True)
class ImageFormat:
    """Shape (h, w, c) of a model's images, and how the model standardises them.

    `mean` and `std` have one value for each channel, in units of pixel values 0 to 255. If
    `preprocessing` is imagenet, the model standardises images as keras.applications does for this
    model, and `mean` and `std` are unused. `training_shapes` are the heights and widths of the
    images in training, if they may differ from `shape`.
    """

    shape: ImageShape
    mean: Sequence[float]
    std: Sequence[float]
    preprocessing: str | None = None
    training_shapes: Sequence[tuple[int, int]] = ()


@dataclasses.dataclass(frozen=True)
class GhostNorm:
    """Settings of ghost batch norms: size in examples, decay per ghost batch, and kernel."""

    batch_size: int
    decay: float
    kernel: Kernel


def build(
    name: str,
    images: ImageFormat,
    classes: int,
    ghost: GhostNorm,
    *,
    seed: int,
    precision: str = "float32",
    drop_path: float = 0.0,
) -> keras.Model:
    """Returns the model `name`, created in the scope of the current strategy.

    Args:
        name: value of --model; the docstring of this module lists the values.
        images: shape and standardisation of the images.
        classes: number of logits.
        ghost: settings of the ghost batch norms.
        seed: seed of the initial weights. This function also sets the seeds of Python's, numpy's
            and TensorFlow's generators.
        precision: data type in which the network's layers compute: float32 or bfloat16.
            Parameters, batch-norm statistics and logits are always float32.
        drop_path: rate of stochastic depth in the last block; only for resnet_50 and vit models.

    Returns:
        A model from uint8 images [b, h, w, c] to float32 logits [b, classes].

    Raises:
        UserError: if the model does not exist, cannot be built for these images and classes, or
            does not return logits.
    """
    check_name(name)
    keras.utils.set_random_seed(keras_seed(seed))
    with _layers_in(precision):
        network = _network(name, images, classes, drop_path)
    inputs = keras.Input(images.shape, dtype="uint8", name="images")
    dtype = _input_dtype(network)
    pixels = keras.ops.cast(inputs, dtype)  # [b, h, w, c], 0..255
    if dtype == "float32" and not _standardises(network):
        if images.preprocessing:
            pixels = application.preprocess(name, pixels)
        else:
            pixels = keras.layers.Normalization(
                mean=list(images.mean), variance=[std**2 for std in images.std], dtype="float32"
            )(pixels)
    with explain_refusal(name, "cannot be built"):
        logits = network(pixels)  # [b, classes]
    if isinstance(logits, list) and len(logits) == 1:  # keras.Model(x, [y]) returns a list.
        (logits,) = logits
    if tuple(getattr(logits, "shape", ())) != (None, classes):
        shape = getattr(logits, "shape", type(logits).__name__)
        raise UserError(
            f"model {name} returns {shape}; it must return logits of shape (None, {classes})"
        )
    if logits.dtype != "float32":
        logits = keras.layers.Identity(dtype="float32", name="float32_logits")(logits)
    model = keras.Model(inputs, logits, name="classifier")
    if ":" in name:
        model_checks.check(name, network, tf.TensorSpec((ghost.batch_size, *images.shape), dtype))
    model = ghostify(
        model, ghost_batch_size=ghost.batch_size, decay=ghost.decay, kernel=ghost.kernel
    )
    accept_sizes(name, model, images.training_shapes)
    return model


def check_name(name: str) -> None:
    """Checks that the model `name` exists, without building it or importing a user's module.

    Raises:
        UserError: if it does not exist.
    """
    names.check_sizes(name)
    if ":" in name:
        user_function.check_name(name)
    elif not (names.is_own(name) or application.constructor_of(name)):
        raise UserError(f"--model={name} is not a model; {_suggest(name)}")


@contextlib.contextmanager
def _layers_in(precision: str) -> Iterator[None]:
    """Sets the default precision of the layers that are created in the `with` block."""
    outer = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16" if precision == "bfloat16" else precision)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(outer)


def _network(name: str, images: ImageFormat, classes: int, drop_path: float) -> keras.Model:
    """Returns the network `name`, from float images to logits."""
    image_shape = images.shape
    if name == names.RESNET_50:
        return resnet_50(image_shape, classes, drop_path)
    if match := names.VIT.fullmatch(name):
        size, patch = SIZES[match[1]], int(match[2])
        for height, width in images.training_shapes:
            check_divides(patch, height, width)
        return vision_transformer(size, patch, image_shape, classes, drop_path)
    assert not drop_path  # The command line refuses --drop_path for other models.
    if ":" in name:
        return user_function.build(name, image_shape, classes)
    if match := names.WIDE_RESNET.fullmatch(name):
        return wide_resnet(int(match[1]), int(match[2]), image_shape, classes)
    if name in _OWN:
        return _OWN[name](image_shape, classes)
    constructor = application.constructor_of(name)
    assert constructor is not None  # `check_name` refuses other names.
    raw: dict[str, Any] = {}
    if "include_preprocessing" in inspect.signature(constructor).parameters:
        raw = {"include_preprocessing": bool(images.preprocessing)}
    with explain_refusal(name, "cannot be built"):
        network = constructor(
            input_shape=image_shape,
            weights=None,
            classes=classes,
            classifier_activation=None,
            **raw,
        )
    _return_in_float32(network)
    return network


def _return_in_float32(network: keras.Model) -> None:
    """Makes the last layer with weights, and the layers after it, compute in float32.

    Logits in bfloat16 would have relative rounding errors of up to 0.4%.
    """
    for layer in reversed(network.layers):
        layer.dtype_policy = "float32"
        if layer.weights:
            return


def _suggest(name: str) -> str:
    """Returns a text with known names that are similar to `name`, and the forms of --model."""

    def plain(name: str) -> str:
        return name.lower().replace("_", "")

    examples = ["wide_resnet_16_4", "vit_s_16"]
    known = [*application.constructors(), *_OWN, *names.ALIASES, *examples]
    near = difflib.get_close_matches(plain(name), set(map(plain, known)), n=3, cutoff=0.6)
    named = [*_OWN, *names.ALIASES]
    own = ", ".join(["wide_resnet_<depth>_<width>", "vit_<ti|s|b>_<patch>", *named])
    forms = f"{own}, a name in keras.applications or module:function"
    if not near:
        return f"it is {forms}"
    # `plain` makes VGG16 and vgg_16 equal, so both are suggested for a similar name.
    matches = [model for match in near for model in known if plain(model) == match]
    return f"did you mean {' or '.join(matches)}? It is {forms}"


def _input_dtype(network: keras.Model) -> str:
    """Returns the data type of the network's Input if it is an integer type, otherwise float32."""
    # A subclassed model has no Input.
    declared = [each.dtype for each in getattr(network, "inputs", None) or []]
    return declared[0] if declared and "int" in declared[0] else "float32"


def _standardises(network: keras.Model) -> bool:
    own = (keras.layers.Rescaling, keras.layers.Normalization)
    return any(isinstance(layer, own) for layer in network._flatten_layers())
