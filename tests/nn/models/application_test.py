"""Weights of keras.applications, from files of their own form in Keras' cache; no network."""

import functools
import os
import urllib.request

import h5py
import keras
import numpy as np
import pytest
from keras.src.applications import convnext, efficientnet_v2, resnet
from keras.src.backend import config
from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

from tests.nn.models.registry_test import images_of
from trainer.errors import UserError
from trainer.nn.ghostify import unghostify
from trainer.nn.models import application
from trainer.nn.models.registry import GhostNorm, ImageFormat, build
from trainer.nn.transfer import transfer

FILES = {
    "ResNet50": "resnet50_weights_tf_dim_ordering_tf_kernels.h5",
    "MobileNetV2": "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224.h5",
    "EfficientNetV2B0": "efficientnetv2-b0.h5",
    "ConvNeXtTiny": "convnext_tiny.h5",
}
SIZE = (40, 64)  # Keras publishes the weights of networks for 224×224.


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Keras' cache in a folder of the test; Keras does not compare checksums of published files."""
    monkeypatch.setattr(config, "_KERAS_DIR", str(tmp_path))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))  # Keras has read it at its import.
    for module in (resnet, efficientnet_v2, convnext):
        unchecked = dict.fromkeys(module.WEIGHTS_HASHES, (None, None))
        monkeypatch.setattr(module, "WEIGHTS_HASHES", unchecked)
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


@pytest.fixture(scope="module", autouse=True)
def fewer_blocks():
    """Large families have at most two blocks of a kind: MobileNetV2 and ResNet50 have all."""
    with pytest.MonkeyPatch.context() as patch:
        name = "efficientnetv2-b0"
        blocks = [
            block | {"num_repeat": min(block["num_repeat"], 2)}
            for block in efficientnet_v2.DEFAULT_BLOCKS_ARGS[name]
        ]
        patch.setitem(efficientnet_v2.DEFAULT_BLOCKS_ARGS, name, blocks)
        patch.setitem(convnext.MODEL_CONFIGS["tiny"], "depths", [1, 1, 2, 1])
        patch.setitem(convnext.MODEL_CONFIGS["tiny"], "projection_dims", [8, 12, 16, 24])
        yield


def write_weights(name, path):
    """Writes a weights file as Keras publishes it, with random values; returns its network."""
    shape = (*SIZE, 3)
    constructor = getattr(keras.applications, name)
    network = constructor(input_shape=shape, weights=None, classifier_activation=None)
    rng = np.random.default_rng(0)
    for variable in network.weights:
        shape = variable.shape
        if len(shape) == 1:
            wide = 0.5 if "variance" in variable.name else 0.1
            variable.assign_add(rng.uniform(-wide, wide, shape))
        else:  # A layer keeps the scale of its inputs, of which a depthwise one sums few.
            summed = np.prod(shape[:2] if shape[-1] == 1 else shape[:-1])
            values = rng.standard_normal(shape, np.float32)
            variable.assign(values * np.float32((2 / summed) ** 0.5))
    with h5py.File(path, "w") as file:
        save_weights_to_hdf5_group(file, network)
    return network


@pytest.fixture(scope="module")
def of_imagenet():
    """Returns a function that builds a model of 5 classes, once, for images of SIZE."""

    @functools.cache
    def built(name):
        images = ImageFormat((*SIZE, 3), (1.0,) * 3, (1.0,) * 3, "imagenet")
        return build(name, images, 5, GhostNorm(2, 0.9, "fused"), seed=0)

    return built


@pytest.mark.parametrize("name", FILES)
def test_logits_are_those_of_the_application(cache, name, of_imagenet):
    own = write_weights(name, cache / FILES[name])
    found = application.weights(name)
    model = of_imagenet(name)
    # Of other classes and sizes, only the head is new.
    other = transfer(model, found)
    head = [*found][-2:]
    assert [*other.new] == [*other.left] == head
    loaded = transfer(model, found | {path: found[path][..., :5] for path in head})
    assert (loaded.new, loaded.left) == ({}, {})
    images = images_of(2, (*SIZE, 3))
    modules = {
        "ResNet50": keras.applications.resnet50,
        "MobileNetV2": keras.applications.mobilenet_v2,
        "EfficientNetV2B0": keras.applications.efficientnet_v2,
        "ConvNeXtTiny": keras.applications.convnext,
    }
    pixels = modules[name].preprocess_input(images.astype(np.float32))
    expected = own(pixels, training=False)[:, :5]
    scale = float(np.abs(expected).max())
    assert np.abs(expected[0] - expected[1]).max() > 1e-3 * scale  # The pixels matter.
    np.testing.assert_allclose(model(images, training=False) / scale, expected / scale, atol=1e-5)


def test_a_model_with_preprocessing_saves_and_loads(tmp_path, of_imagenet):
    model = of_imagenet.__wrapped__("ResNet50")  # This test removes its ghost batches.
    unghostify(model).save(tmp_path / "model.keras")
    images = images_of(2, (*SIZE, 3))
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(images), model(images))


@pytest.mark.parametrize(
    ("name", "channels", "message"),
    [
        ("resnet_50", 3, "resnet_50 is not one of them: use --model=ResNet50"),
        ("wide_resnet_10_1", 3, "wide_resnet_10_1 is not one of them"),
        ("EfficientNetB0", 3, "EfficientNetV2B0"),
        ("MobileNetV2", 1, "needs colour images"),
    ],
)
def test_models_without_such_weights_are_refused(name, channels, message):
    with pytest.raises(UserError) as error:
        application.check(name, channels)
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 2


def test_without_a_network_the_place_of_the_file_is_named(cache, monkeypatch):
    # The proxy's port is closed, so that no machine downloads the file. urlopen keeps the proxies
    # of its first call for all later ones.
    monkeypatch.setattr(urllib.request, "_opener", None)
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with pytest.raises(UserError) as error:
        application.weights("MobileNetV2")
    first, remedy = str(error.value).splitlines()
    assert first.startswith("--init_from=imagenet: the weights of MobileNetV2 cannot be read: URL")
    assert f" as {os.path.join(cache, FILES['MobileNetV2'])}, and copy it" in remedy
