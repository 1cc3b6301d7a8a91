"""Values of --model: which of them build, their inputs and outputs, and which are refused."""

import functools
import pathlib
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.errors import UserError
from trainer.nn.ghost_batch_norm import GhostBatchNormalization
from trainer.nn.models.registry import GhostNorm, ImageFormat, build
from trainer.nn.models.wide_resnet import wide_resnet

MEAN, STD = [120.0, 110.0, 100.0], [60.0, 50.0, 40.0]

OWN_MODELS = """
import keras

def sequential(image_shape, classes, *layers, activation=None):
    return keras.Sequential([
        keras.Input(image_shape),
        *layers,
        keras.layers.Flatten(),
        keras.layers.BatchNormalization(),
        keras.layers.Dense(classes, activation),
    ])

def good(image_shape, classes):
    return sequential(image_shape, classes)

def rescaled(image_shape, classes):
    return sequential(image_shape, classes, keras.layers.Rescaling(1 / 255))

def softmax(image_shape, classes):
    return sequential(image_shape, classes, activation="softmax")

class Subclassed(keras.Model):
    def __init__(self, classes):
        super().__init__()
        self.norm = keras.layers.BatchNormalization()
        self.dense = keras.layers.Dense(classes)

    def call(self, images, training=None):
        x = self.norm(images, training=training)
        return keras.ops.softmax(self.dense(keras.ops.mean(x, axis=(1, 2))))

def subclassed_softmax(image_shape, classes):
    return Subclassed(classes)

class TooDeep(Subclassed):
    def call(self, images, training=None):
        return keras.layers.Conv2D(2, 99)(images)

def subclassed_too_deep(image_shape, classes):
    return TooDeep(classes)

def one_class_too_many(image_shape, classes):
    return sequential(image_shape, classes + 1)

def no_model(image_shape, classes):
    return [image_shape, classes]

def other_arguments(image_shape):
    return sequential(image_shape, 2)

def two_outputs(image_shape, classes):
    images = keras.Input(image_shape)
    x = keras.layers.Flatten()(images)
    return keras.Model(images, [x, x])

def too_deep(image_shape, classes):
    return sequential(image_shape, classes, keras.layers.Conv2D(2, 99))

number = 3
"""


@pytest.fixture
def own_models(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    """Writes a user's own_models.py to the current directory, which is not on the path yet."""
    (tmp_path / "own_models.py").write_text(OWN_MODELS)
    (tmp_path / "broken_models.py").write_text("import no_such_module\n")
    (tmp_path / "unfinished_models.py").write_text("def model(:\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    yield
    sys.modules.pop("own_models", None)


def make(name, image_shape=(32, 32, 3), classes=5, seed=0, **options):
    values = {"mean": MEAN, "std": STD, "ghost_batch_size": 2, "ghost_decay": 0.9} | options
    images = ImageFormat(image_shape, values.pop("mean"), values.pop("std"))
    decay, kernel = values.pop("ghost_decay"), values.pop("kernel", "fused")
    ghost = GhostNorm(values.pop("ghost_batch_size"), decay, kernel)
    return build(name, images, classes, ghost, seed=seed, **values)


def images_of(batch, shape=(32, 32, 3)):
    return np.random.default_rng(0).integers(0, 256, (batch, *shape), np.uint8)


def test_raw_images_are_standardised_without_further_weights():
    model = make("wide_resnet_10_1")
    bare = wide_resnet(10, 1, (32, 32, 3), 5)
    assert [w.shape for w in model.weights] == [w.shape for w in bare.weights]
    bare.set_weights(model.get_weights())
    images = images_of(3)
    standard = ((images - np.array(MEAN)) / np.array(STD)).astype(np.float32)
    np.testing.assert_allclose(model(images), bare(standard), rtol=1e-4, atol=1e-5)
    assert model.input_shape == (None, 32, 32, 3)
    assert (model.input.dtype, model.output.dtype) == ("uint8", "float32")


def test_images_may_have_one_channel():
    model = make("wide_resnet_10_1", image_shape=(28, 28, 1), mean=[72.9], std=[90.0])
    assert model(images_of(2, (28, 28, 1)), training=True).shape == (2, 5)


def norms_of(model):
    layers = model._flatten_layers()
    return [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]


@pytest.fixture(scope="module")
def built():
    """Returns a function that makes a model once; the tests leave its weights as they are."""
    return functools.cache(lambda name, classes: make(name, classes=classes, kernel="reshaped"))


@pytest.mark.parametrize(
    ("name", "classes"),
    [
        ("wide_resnet_10_1", 5),
        ("vgg_16", 5),
        ("plain_9", 5),
        ("MobileNetV2", 1000),
        ("MobileNetV3Small", 5),
        ("VGG16", 5),
    ],
)
def test_models_have_ghost_layers_and_return_logits(name, classes, built):
    model = built(name, classes)
    norms = norms_of(model)
    assert bool(norms) == (name != "VGG16")
    for layer in norms:
        assert type(layer) is GhostBatchNormalization
        assert (layer.ghost_batch_size, layer.momentum, layer.kernel) == (2, 0.9, "reshaped")
    logits = model(images_of(4), training=True)
    assert (logits.shape, logits.dtype) == ((4, classes), tf.float32)
    assert not np.allclose(tf.reduce_sum(logits, axis=1), 1)


# Published parameters with 1,000 classes and moving statistics, and norms; resnet_test.py has more.
PUBLISHED = {
    "MobileNet": (4_253_864, 27),
    "MobileNetV2": (3_538_984, 52),
    "DenseNet121": (8_062_504, 121),
    "EfficientNetB0": (5_330_571, 49),  # This includes its Normalization.
    "ResNet50": (25_636_712, 53),  # This includes the biases of its convolutions.
}


@pytest.mark.parametrize(("name", "sizes"), PUBLISHED.items())
def test_models_have_the_published_sizes(name, sizes, built):
    model = built(name, 1000)
    assert (model.count_params(), len(norms_of(model))) == sizes
    assert {type(layer) for layer in norms_of(model)} == {GhostBatchNormalization}


def test_inception_resnet_v2_has_the_published_size_and_its_files_load():
    model = make("inception_resnet_v2", image_shape=(75, 75, 3), classes=1000)
    assert model.count_params() == 55_873_736
    assert sum(int(np.prod(w.shape)) for w in model.trainable_weights) == 55_813_192
    assert len(norms_of(model)) == 204
    assert {type(layer) for layer in norms_of(model)} == {GhostBatchNormalization}
    # Keras does not export the class of this layer, but files must name it.
    scales = [layer for layer in model._flatten_layers() if "scale" in layer.name]
    assert len(scales) == 10 + 20 + 10
    for layer in scales:
        saved = keras.saving.serialize_keras_object(layer)
        loaded = keras.saving.deserialize_keras_object(saved, safe_mode=True)
        assert (type(loaded), loaded.scale) == (type(layer), layer.scale)


def test_a_network_with_its_own_preprocessing_gets_raw_pixels(built):
    model = built("EfficientNetB0", 1000)
    keras.utils.set_random_seed(0)
    bare = keras.applications.EfficientNetB0(
        input_shape=(32, 32, 3), weights=None, classes=1000, classifier_activation=None
    )
    images = images_of(2)
    np.testing.assert_allclose(model(images), bare(images.astype(np.float32)), atol=1e-5)
    assert not any(
        isinstance(layer, keras.layers.Normalization) for layer in model.layers
    )  # Its own Normalization is in the nested network.


def test_a_network_with_optional_preprocessing_gets_standardised_pixels(built):
    model = built("MobileNetV3Small", 5)
    layers = [type(layer) for layer in model._flatten_layers()]
    assert layers.count(keras.layers.Normalization) == 1
    assert keras.layers.Rescaling not in layers


@pytest.mark.usefixtures("own_models")
def test_models_of_user_functions_build():
    good = make("own_models:good", image_shape=(4, 4, 3))
    assert good(images_of(2, (4, 4, 3)), training=True).shape == (2, 5)
    assert type(norms_of(good)[0]) is GhostBatchNormalization
    assert any(isinstance(layer, keras.layers.Normalization) for layer in good.layers)
    rescaled = make("own_models:rescaled", image_shape=(4, 4, 3))
    assert not any(isinstance(layer, keras.layers.Normalization) for layer in rescaled.layers)


def test_weights_are_a_function_of_the_seed(cpus):
    def weights(seed):
        return make("wide_resnet_10_1", seed=seed).get_weights()

    first, again, other = weights(1), weights(1), weights(2)
    with tf.distribute.MirroredStrategy(cpus[:2]).scope():
        mirrored = weights(1)
    for one, same, replicated in zip(first, again, mirrored, strict=True):
        np.testing.assert_array_equal(one, same)
        np.testing.assert_array_equal(one, replicated)
    assert not np.array_equal(first[0], other[0])


def test_models_build_under_mirrored_strategy(cpus):
    strategy = tf.distribute.MirroredStrategy(cpus[:2])
    with strategy.scope():
        model = make("wide_resnet_10_1")

    @tf.function
    def run(images):
        return strategy.run(lambda: model(images, training=False))

    for logits in strategy.experimental_local_results(run(tf.constant(images_of(2)))):
        np.testing.assert_allclose(logits, model(images_of(2)), rtol=1e-4, atol=1e-5)


def test_the_whole_model_saves_and_loads(tmp_path: pathlib.Path):
    model = make("wide_resnet_10_1")
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(images_of(2)), model(images_of(2)))
    model.export(tmp_path / "saved_model", verbose=False)
    exported = tf.saved_model.load(str(tmp_path / "saved_model"))
    np.testing.assert_allclose(
        exported.serve(images_of(1)), model(images_of(1)), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("resnet_5", "did you mean .*ResNet50 or resnet_50"),
        ("inception_resnet_v3", "did you mean InceptionResNetV2 or inception_resnet_v2"),
        ("MobilNetV2", "did you mean MobileNetV2"),
        ("vgg16", "did you mean VGG16 or vgg_16 or VGG19"),
        ("plain_8", "did you mean plain_9"),
        ("vit_l_16", "did you mean vit_s_16"),
        ("wide_resnet_16", "did you mean wide_resnet_16_4"),
        ("wide_resnet_17_4", "16 or 22"),
        ("zzz", "module:function"),
        ("preprocess_input", "module:function"),
        ("InceptionV3", "at least 75x75"),
        ("no_such_module:model", "cannot import 'no_such_module'"),
        ("own_models.py:no_model", r"cannot import 'own_models.py'.*\n.*--model=own_models:FUNC"),
        (".own_models:model", "cannot import '.own_models'"),
        ("broken_models:model", "raised ModuleNotFoundError: .*no_such_module"),
        ("unfinished_models:model", "raised SyntaxError: .*"),
        ("own_models:no_such_function", "no function 'no_such_function'"),
        ("own_models:number", "no function 'number'"),
        ("own_models:no_model", "returned a list: return a keras.Model"),
        ("own_models:other_arguments", r"called as other_arguments\(image_shape, classes\)"),
        ("own_models:too_deep", "raised ValueError: .*99"),
        ("own_models:subclassed_too_deep", "raised ValueError: .*99"),
        ("own_models:one_class_too_many", r"\(None, 6\); it must .* \(None, 5\)"),
        ("own_models:two_outputs", r"returns list; it must return logits"),
        ("own_models:softmax", "remove the softmax"),
        ("own_models:subclassed_softmax", "remove the softmax"),
    ],
)
@pytest.mark.usefixtures("own_models")
def test_invalid_models_are_refused_in_two_lines_with_name_and_reason(name, reason):
    with pytest.raises(UserError, match=reason) as refusal:
        make(name)
    message = str(refusal.value)
    assert message.count("\n") < 2
    assert "depth 17" in message if name == "wide_resnet_17_4" else name in message


def test_a_name_that_resembles_a_transformer_is_refused_beside_stochastic_depth_too():
    images, ghost = ImageFormat((28, 28, 3), MEAN, STD), GhostNorm(16, 0.9, "fused")
    with pytest.raises(UserError, match="did you mean vit_s_16"):
        build("vit_l_16", images, 5, ghost, seed=0, drop_path=0.1)
