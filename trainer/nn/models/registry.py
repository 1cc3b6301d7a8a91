"""From the value of --model to a Keras model: raw images in, float32 logits out.

A name is `wide_resnet_<depth>_<width>`, `resnet_50`, `vgg_16`, `plain_9`, a constructor of
keras.applications as Keras spells it (and `inception_resnet_v2`), or `module:function`. What stands
in front of the network is part of the model, so that training, evaluation and export agree: pixels
are standardised by the data's mean and standard deviation, unless the network has a Rescaling or
Normalization layer of its own, or an integer Input, which then get the pixels 0..255. Its batch
normalization is made ghost.
"""

import contextlib
import difflib
import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from trainer.errors import UserError
from trainer.nn import model_checks
from trainer.nn.ghost_batch_norm import Kernel
from trainer.nn.ghostify import ghostify
from trainer.nn.models import user_function
from trainer.nn.models.plain import plain_9, vgg_16
from trainer.nn.models.resnet import resnet_50
from trainer.nn.models.wide_resnet import wide_resnet
from trainer.nn.seeds import keras_seed
from trainer.nn.user_code import one_line, unwrap_user_errors

ImageShape = tuple[int, int, int]

_OWN = {"resnet_50": resnet_50, "vgg_16": vgg_16, "plain_9": plain_9}
_ALIASES = {"inception_resnet_v2": "InceptionResNetV2"}  # of constructors in keras.applications


def build(
    name: str,
    *,
    image_shape: ImageShape,
    classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    seed: int,
    ghost_batch_size: int,
    ghost_decay: float,
    kernel: Kernel,
    precision: str = "float32",
) -> keras.Model:
    """The model of that name, its weights a function of `seed`, under the current strategy's scope.

    Args:
        name: see the module.
        image_shape: (h, w, c), pixels.
        classes: number of logits.
        mean, std: per channel, in pixel values 0..255.
        seed: of Python's, numpy's and TensorFlow's generators, which this sets.
        ghost_batch_size: G, examples.
        ghost_decay: d, per ghost batch.
        kernel: of the ghost batch norm.
        precision: float32 or bfloat16, of the network's layers and what they hand on; parameters,
            batch-norm statistics and logits are float32 always.

    Returns:
        A model from uint8 images [b, h, w, c] to float32 logits [b, classes].

    Raises:
        UserError: for a name that is none, or a network that cannot be built for these images and
            classes, with its own reason, or does not return logits.
    """
    keras.utils.set_random_seed(keras_seed(seed))
    with _layers_in(precision):
        network = _network(name, image_shape, classes)
    images = keras.Input(image_shape, dtype="uint8", name="images")
    dtype = _input_dtype(network)
    pixels = keras.ops.cast(images, dtype)  # [b, h, w, c], 0..255
    if dtype == "float32" and not _standardises(network):
        pixels = keras.layers.Normalization(
            mean=list(mean), variance=[deviation**2 for deviation in std], dtype="float32"
        )(pixels)
    logits = _with_reason(name, lambda: network(pixels))  # [b, classes]
    if isinstance(logits, list) and len(logits) == 1:  # of keras.Model(x, [y])
        (logits,) = logits
    if tuple(getattr(logits, "shape", ())) != (None, classes):
        shape = getattr(logits, "shape", type(logits).__name__)
        raise UserError(
            f"model {name} returns {shape}; it must return logits of shape (None, {classes})"
        )
    if logits.dtype != "float32":
        logits = keras.layers.Identity(dtype="float32", name="float32_logits")(logits)
    model = keras.Model(images, logits, name="classifier")
    if ":" in name:
        model_checks.check(name, network, tf.TensorSpec((ghost_batch_size, *image_shape), dtype))
    return ghostify(model, ghost_batch_size=ghost_batch_size, decay=ghost_decay, kernel=kernel)


@contextlib.contextmanager
def _layers_in(precision: str) -> Iterator[None]:
    """Layers made within compute in `precision` unless they say otherwise."""
    outer = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16" if precision == "bfloat16" else precision)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(outer)


def _network(name: str, image_shape: ImageShape, classes: int) -> keras.Model:
    """The network of that name from float images to logits."""
    if ":" in name:
        return user_function.build(name, image_shape, classes)
    if match := re.fullmatch(r"wide_resnet_(\d+)_(\d+)", name):
        return wide_resnet(int(match[1]), int(match[2]), image_shape, classes)
    if name in _OWN:
        return _OWN[name](image_shape, classes)
    constructors = dict(inspect.getmembers(keras.applications, inspect.isfunction))
    constructor = constructors.get(_ALIASES.get(name, name))
    if constructor is None:
        raise UserError(f"--model={name} is no model; {_suggest(name, list(constructors))}")
    arguments = {
        "input_shape": image_shape,
        "weights": None,
        "classes": classes,
        "classifier_activation": None,
    }
    if "include_preprocessing" in inspect.signature(constructor).parameters:
        arguments["include_preprocessing"] = False
    network = _with_reason(name, lambda: constructor(**arguments))
    _return_in_float32(network)
    return network


def _return_in_float32(network: keras.Model) -> None:
    """Makes the layer that has the logits' weights, and those behind it, compute in float32.

    Logits in bfloat16 are off by up to 0.4%, the loss and its gradient with them.
    """
    for layer in reversed(network.layers):
        layer.dtype_policy = "float32"
        if layer.weights:
            return


def _suggest(name: str, constructors: list[str]) -> str:
    def plain(name: str) -> str:
        return name.lower().replace("_", "")

    known = [*constructors, *_OWN, *_ALIASES, "wide_resnet_16_4"]
    near = difflib.get_close_matches(plain(name), set(map(plain, known)), n=3, cutoff=0.6)
    own = ", ".join(["wide_resnet_<depth>_<width>", *_OWN])
    forms = f"{own}, a name in keras.applications or module:function"
    if not near:
        return f"it is {forms}"
    # VGG16 and vgg_16 are written alike: both are named.
    matches = [model for match in near for model in known if plain(model) == match]
    return f"did you mean {' or '.join(matches)}? It is {forms}"


def _with_reason(name: str, construct: Callable[[], Any]) -> Any:
    """What `construct` returns; where Keras refuses, an image too small for one, its reason."""
    try:
        with unwrap_user_errors(f"--model={name}"):
            return construct()
    except UserError:
        raise
    except Exception as error:
        if not isinstance(error, ValueError) and ":" not in name:
            raise
        raise UserError(f"model {name} cannot be built: {one_line(error)}") from error


def _input_dtype(network: keras.Model) -> str:
    """Returns the type of the pixels that the network takes: its Input's if that is an integer.

    An integer Input declares raw pixels, 0 to 255. A subclassed model has no Input.
    """
    declared = [each.dtype for each in getattr(network, "inputs", None) or []]
    return declared[0] if declared and "int" in declared[0] else "float32"


def _standardises(network: keras.Model) -> bool:
    own = (keras.layers.Rescaling, keras.layers.Normalization)
    return any(isinstance(layer, own) for layer in network._flatten_layers())
