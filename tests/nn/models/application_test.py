"""Weights of keras.applications, from files of their own form in Keras' cache; no network."""

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
from trainer.nn.models import application
from trainer.nn.models.registry import GhostNorm, ImageFormat, build
from trainer.nn.transfer import transfer

FILES = {
    "ResNet50": "resnet50_weights_tf_dim_ordering_tf_kernels.h5",
    "MobileNetV2": "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224.h5",
    "EfficientNetV2B0": "efficientnetv2-b0.h5",
    "ConvNeXtTiny": "convnext_tiny.h5",
}


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


def write_weights(name, path):
    """Writes a weights file as Keras publishes it, with random values."""
    network = getattr(keras.applications, name)(weights=None)
    rng = np.random.default_rng(0)
    for variable in network.weights:
        low, high = (0.5, 1.5) if "variance" in variable.name else (-0.1, 0.1)
        variable.assign(rng.uniform(low, high, variable.shape))
    with h5py.File(path, "w") as file:
        save_weights_to_hdf5_group(file, network)


def of_imagenet(name, side, classes):
    images = ImageFormat((side, side, 3), (1.0,) * 3, (1.0,) * 3, "imagenet")
    return build(name, images, classes, GhostNorm(2, 0.9, "fused"), seed=0)


@pytest.mark.parametrize("name", FILES)
def test_logits_are_those_of_the_application(cache, name):
    write_weights(name, cache / FILES[name])
    found = application.weights(name)
    model = of_imagenet(name, 224, 1000)
    loaded = transfer(model, found)
    assert (loaded.new, loaded.left) == ({}, {})
    constructor = getattr(keras.applications, name)
    own = constructor(weights="imagenet", classifier_activation=None)
    images = images_of(2, (224, 224, 3))
    modules = {
        "ResNet50": keras.applications.resnet50,
        "MobileNetV2": keras.applications.mobilenet_v2,
        "EfficientNetV2B0": keras.applications.efficientnet_v2,
        "ConvNeXtTiny": keras.applications.convnext,
    }
    expected = own(modules[name].preprocess_input(images.astype(np.float32)), training=False)
    scale = float(np.abs(expected).max())
    np.testing.assert_allclose(model(images, training=False) / scale, expected / scale, atol=1e-5)
    # Of other classes and sizes, only the head is new.
    small = transfer(of_imagenet(name, 64, 5), found)
    assert [*small.new] == [*small.left] == [*found][-2:]


def test_a_model_with_preprocessing_saves_and_loads(tmp_path):
    model = of_imagenet("ResNet50", 32, 3)
    from trainer.nn.ghostify import unghostify

    unghostify(model).save(tmp_path / "model.keras")
    images = images_of(2)
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
