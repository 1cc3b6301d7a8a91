"""Models of keras.applications, their ImageNet weights, and the preprocessing that they need.

Keras downloads weights into its cache, ~/.keras/models, and reads them from there afterwards.
"""

import contextlib
import inspect
import os
import re
import socket
import types
from collections.abc import Callable, Iterator

import keras
import numpy as np

from trainer.errors import UserError
from trainer.nn.layer_paths import weight_paths
from trainer.nn.models.names import ALIASES

IMAGENET = "imagenet"
# Maps names of this program's own networks to similar models of keras.applications.
_SIMILAR = {"resnet_50": "ResNet50", "vgg_16": "VGG16"}
_SILENCE_SECONDS = 60.0  # A download fails if it receives nothing for this time.


def constructors() -> dict[str, Callable[..., keras.Model]]:
    """Returns the constructors of keras.applications by name."""
    return dict(inspect.getmembers(keras.applications, inspect.isfunction))


def constructor_of(name: str) -> Callable[..., keras.Model] | None:
    """Returns the constructor in keras.applications that --model=`name` means, or None."""
    return constructors().get(ALIASES.get(name, name))


def check(name: str, channels: int) -> None:
    """Checks that --model=`name` can use ImageNet weights on images with `channels` channels.

    Raises:
        UserError: if such weights do not exist or do not fit this program's standardisation, or if
            `channels` is not 3.
    """
    if constructor_of(name) is None:
        similar = f": use --model={_SIMILAR[name]}" if name in _SIMILAR else ""
        raise UserError(
            f"--init_from={IMAGENET} has weights for the models of keras.applications alone, and "
            f"--model={name} is not one of them{similar}.\n"
            "Name another model, such as ResNet50, or the run, export or file with its weights."
        )
    if re.fullmatch("EfficientNetB[0-7]", ALIASES.get(name, name)):
        raise UserError(
            f"--init_from={IMAGENET} cannot be used with --model={name}, whose standardisation is "
            "part of the weights.\nUse --model=EfficientNetV2B0, or another EfficientNetV2."
        )
    if channels != 3:
        raise UserError(
            f"--init_from={IMAGENET} needs colour images with 3 channels, and these images have "
            f"{channels}.\n"
            "Convert them to RGB, or leave --init_from out."
        )


def preprocess(name: str, pixels: keras.KerasTensor) -> keras.KerasTensor:
    """Applies the `preprocess_input` of model `name` to pixels 0 to 255, float32 [b, h, w, 3]."""
    name = ALIASES.get(name, name)
    modules = inspect.getmembers(keras.applications, lambda x: isinstance(x, types.ModuleType))
    # ResNet50 is in two modules, resnet and resnet50, which have the same preprocess_input.
    module = next(module for _, module in modules if hasattr(module, name))
    return module.preprocess_input(pixels, data_format="channels_last")


def weights(name: str) -> dict[str, np.ndarray]:
    """Returns the ImageNet weights of --model=`name`, for 1,000 classes, by path (layer_paths.py).

    The weights are for images of the model's default size in Keras.

    Raises:
        UserError: if the weights are not in Keras' cache and cannot be downloaded.
    """
    constructor = constructor_of(name)
    assert constructor is not None  # The caller has called `check`.
    try:
        with _bounded():
            network = constructor(weights=IMAGENET)
    except Exception as error:  # Keras raises Exception itself, and sockets raise OSError.
        text = str(error) or repr(error)
        url = (re.search(r"https?://[^\s:]+", text) or [""])[0]
        home = os.environ.get("KERAS_HOME", os.path.expanduser("~/.keras"))
        cache = os.path.join(home, "models")
        file = f"{url} as {cache}/{os.path.basename(url)}" if url else f"its file in {cache}"
        raise UserError(
            f"--init_from={IMAGENET}: the weights of {name} cannot be read: {text.splitlines()[0]}"
            f".\nOn a machine with a network, download {file}, and copy it to the same place here."
        ) from error
    return {path: np.asarray(variable) for path, variable in weight_paths(network).items()}


@contextlib.contextmanager
def _bounded() -> Iterator[None]:
    """Makes a download in the `with` block fail if it receives nothing for a minute."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_SILENCE_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
