"""Unusual models of users: those that are refused, and those that must not be."""

import sys
import types

import keras
import pytest
import tensorflow as tf

from trainer.errors import UserError
from trainer.nn.model_configuration import fingerprint
from trainer.nn.models.registry import GhostNorm, ImageFormat, build, check_name

SHAPE = (4, 4, 1)


def model_of(*layers):
    return keras.Sequential([keras.Input(SHAPE), *layers, keras.layers.Flatten(), dense()])


def dense(**options):
    return keras.layers.Dense(3, **options)


class Lookup(keras.layers.Layer):
    def __init__(self):
        super().__init__()
        self.rows = keras.layers.Embedding(256, 2)

    def call(self, x):
        return self.rows(tf.cast(x, "int32"))


class AssignsValue(keras.layers.Layer):
    def build(self, shape):
        self.mean = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, x, training=None):
        if training:
            self.mean.value.assign(keras.ops.mean(x))
        return x - self.mean


class HidesItsGenerator(keras.layers.Layer):
    def __init__(self):
        super().__init__()
        self.hidden = types.SimpleNamespace(generator=keras.random.SeedGenerator(7))

    def call(self, x):
        return x + keras.random.normal(keras.ops.shape(x), seed=self.hidden.generator)


class NoConfiguration(keras.layers.Layer):
    def get_config(self):
        raise AttributeError("none")


class NoCall(keras.Model):
    pass


class NoStart(keras.Model):
    def __init__(self):
        self.dense = dense()


def wrong_index(weight):
    return {}[weight.shape]


def frozen():
    model = model_of()
    model.trainable = False
    return model


def leaves():
    sys.exit(0)


def make(monkeypatch, function):
    module = types.ModuleType("hostile")
    module.model = lambda image_shape, classes: function()
    monkeypatch.setitem(sys.modules, "hostile", module)
    return build(
        "hostile:model",
        ImageFormat(SHAPE, [100.0], [50.0]),
        3,
        GhostNorm(2, 0.9, "fused"),
        seed=0,
    )


REFUSED = {
    "no weights to train": frozen,
    "raised SystemExit": leaves,
    "assigns to a tf.Variable": lambda: model_of(AssignsValue()),
    "SeedGenerator that Keras does not see": lambda: model_of(HidesItsGenerator()),
    r"constraint of \S+ makes shape \(2, 3\)": lambda: model_of(
        dense(kernel_constraint=lambda w: tf.concat([w, w], 0))
    ),
    "raised KeyError": lambda: model_of(dense(kernel_constraint=wrong_index)),
    "raised KeyError: ": lambda: model_of(dense(kernel_regularizer=wrong_index)),
    "TensorFlow's RandomStandardNormal": lambda: model_of(
        dense(kernel_constraint=lambda w: w + tf.random.normal(w.shape))
    ),
    "in a constraint or regularizer": lambda: model_of(
        dense(kernel_regularizer=lambda w: keras.random.normal(()) * tf.reduce_sum(w))
    ),
    "NotImplementedError": NoCall,
    "forgot to call": NoStart,
}


@pytest.mark.parametrize("reason", REFUSED)
def test_unsupported_models_are_refused_by_name(monkeypatch, reason):
    with pytest.raises(UserError, match=reason) as refusal:
        make(monkeypatch, REFUSED[reason])
    assert "hostile:model" in str(refusal.value)


def test_a_lookup_that_takes_only_pixels_is_not_refused(monkeypatch):
    model = make(monkeypatch, lambda: model_of(keras.layers.Rescaling(1.0), Lookup()))
    assert model(tf.zeros((2, *SHAPE), tf.uint8)).shape == (2, 3)


def test_a_model_whose_configuration_raises_has_no_fingerprint():
    assert fingerprint(model_of(NoConfiguration())) is None


def test_a_name_is_checked_without_the_import_of_its_module():
    """A module that builds layers needs the seed, the precision and the strategy of the model."""
    check_name("no_such_module:model")


@pytest.mark.parametrize(
    ("name", "remedy"),
    [(":model", "--model=MODULE:model"), ("own_models:", "--model=own_models:FUNCTION")],
)
def test_a_name_without_a_module_or_function_is_refused_in_two_lines(name, remedy):
    with pytest.raises(UserError, match=f"{name} lacks the name .*\nName .*{remedy}") as refusal:
        check_name(name)
    assert str(refusal.value).count("\n") == 1
