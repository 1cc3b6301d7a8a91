"""The layers that compute the logits are found in whatever order a model creates them."""

import keras
import pytest
import tensorflow as tf

from tests.nn.models.registry_test import make
from tests.support.models import Subclassed, tiny
from trainer.nn.model_head import head

SHAPE, CLASSES = (8, 8, 3), 5


class Own(keras.Model):
    """Creates its layers from the logits to the input, and another that it does not use."""

    def __init__(self):
        super().__init__()
        self.logits = keras.layers.Dense(CLASSES, name="logits")
        self.scale = self.add_weight(shape=(), initializer="ones", name="scale")
        self.other_logits = keras.layers.Dense(CLASSES, use_bias=False, name="other_logits")
        self.hidden = keras.layers.Dense(CLASSES, name="hidden")
        self.norm = keras.layers.BatchNormalization(name="norm")
        self.unused = keras.layers.Dense(CLASSES, name="unused")

    def features(self, x):
        return self.norm(keras.ops.relu(self.hidden(keras.ops.mean(x, axis=(1, 2)))))


class Last(Own):
    """One layer computes the logits, and a temperature scales them."""

    def call(self, x):
        return self.logits(self.features(x)) * self.scale


class InFunction(Own):
    """A tf.function of the model's own computes the logits."""

    @tf.function
    def call(self, x):
        return self.logits(self.features(x))


class Both(Own):
    """The logits are the mean of two layers'."""

    def call(self, x):
        x = self.features(x)
        return keras.ops.log_softmax((self.logits(x) + self.other_logits(x)) / 2)


class Pooled(Own):
    """A convolution computes logits at each place, and their mean is the image's."""

    def __init__(self):
        super().__init__()
        self.places = keras.layers.Conv2D(CLASSES, 3, name="places")
        self.first = keras.layers.Conv2D(CLASSES, 3, name="first")

    def call(self, x):
        return keras.ops.mean(self.places(self.first(x)), axis=(1, 2))


class Head(keras.layers.Layer):
    """A layer that holds others, for a model of Keras' functional API."""

    def __init__(self):
        super().__init__()
        self.logits = keras.layers.Dense(CLASSES, name="logits")
        self.hidden = keras.layers.Dense(CLASSES, name="hidden")

    def call(self, x):
        return self.logits(self.hidden(keras.ops.mean(x, axis=(1, 2))))


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (Last, ["logits"]),
        (InFunction, ["logits"]),
        (Both, ["logits", "other_logits"]),
        (Pooled, ["places"]),
        (Head, ["logits"]),
        (lambda: Subclassed(CLASSES), ["dense"]),
    ],
)
def test_layers_of_the_logits(kind, names):
    inputs = keras.Input(SHAPE)
    model = keras.Model(inputs, kind()(inputs))
    assert [path.rpartition("/")[2] for path in head(model)] == names


def test_models_of_the_functional_api():
    assert head(tiny((28, 28, 1), CLASSES)) == ["dense"]
    assert head(make("wide_resnet_10_1")) == ["logits"]
    assert head(make("MobileNet", (32, 32, 3))) == ["conv_preds"]


def functional(logits):
    inputs = keras.Input(SHAPE)
    x = keras.layers.Conv2D(7, 3, name="hidden")(inputs)
    return keras.Model(inputs, logits(keras.layers.GlobalAveragePooling2D()(x)))


def dense(name, units=CLASSES):
    return keras.layers.Dense(units, name=name)


@pytest.mark.parametrize(
    ("logits", "names"),
    [
        (lambda x: keras.layers.Average()([dense("a")(x), dense("b")(x)]), ["a", "b"]),
        (lambda x: keras.layers.BatchNormalization(name="norm")(dense("a")(x)), ["a", "norm"]),
        (lambda x: dense("a")(x) * dense("gate", 1)(x), ["a"]),
        (lambda x: keras.layers.Reshape([CLASSES])(keras.ops.tanh(dense("a")(x))), ["a"]),
        (lambda x: keras.ops.max(keras.layers.Reshape([-1, 2])(dense("a", 10)(x)), 2), ["a"]),
        (lambda x: keras.ops.maximum(*keras.ops.split(dense("a", 10)(x), 2, 1)), ["a"]),
    ],
)
def test_logits_of_the_functional_api(logits, names):
    assert head(functional(logits)) == names
    inputs = keras.Input(SHAPE)
    outer = keras.Model(inputs, keras.layers.Identity()(functional(logits)(inputs)))
    assert [path.rpartition("/")[2] for path in head(outer)] == names


def test_copies_of_several_devices(cpus):
    strategy = tf.distribute.MirroredStrategy(cpus[:2])
    with strategy.scope():
        inputs = keras.Input(SHAPE)
        model = keras.Model(inputs, Last()(inputs))
        (path,) = head(model)
    assert path == head(model)[0] == "last/logits"
