"""Models of users that are refused, and models that are not."""

import keras
import pytest
import tensorflow as tf

from trainer.errors import UserError
from trainer.nn.model_checks import check

L = keras.layers


def sequential(*layers, dtype="float32"):
    return keras.Sequential([keras.Input((8, 8, 1), dtype=dtype), *layers])


def tail():
    return L.Conv2D(2, 3), L.BatchNormalization(), L.ReLU(), L.GlobalAveragePooling2D(), L.Dense(5)


def layer_of(function):
    """Returns a layer that applies `function` to its input in training."""

    class Own(L.Layer):
        def call(self, x, training=False):
            return function(x) if training else x

    return Own()


def checked(network, dtype=tf.float32):
    network(keras.Input((8, 8, 1), dtype=dtype))  # The registry builds a model in the same way.
    check("mine:net", network, tf.TensorSpec((4, 8, 8, 1), dtype))


class Hidden(L.Layer):
    def __init__(self):
        super().__init__()
        self.counter = tf.Variable(0.0, trainable=False)

    def call(self, x):
        return x + self.counter


class OwnStep(keras.Model):
    def __init__(self, metric=None):
        super().__init__()
        self.dense, self.metric = L.Dense(5), metric

    def call(self, x):
        return self.dense(keras.ops.mean(x, axis=(1, 2)))

    def train_step(self, data):
        raise AssertionError


class OwnLoss(OwnStep):
    train_step = keras.Model.train_step

    def compute_loss(self, *args, **kwargs):
        raise AssertionError


class Plain(OwnStep):
    train_step = keras.Model.train_step


class Squashed(Plain):
    def call(self, x):
        return tf.sigmoid(super().call(x))


class SquashedByHand(Plain):
    def call(self, x):
        return 1 / (1 + tf.exp(-super().call(x)))


def branching(x):
    return tf.cond(tf.reduce_sum(x) > 0, lambda: tf.random.normal(tf.shape(x)), lambda: x)


REFUSED = [
    (lambda: sequential(layer_of(lambda x: tf.nn.dropout(x, 0.3)), *tail()), "RandomUniform"),
    (lambda: sequential(layer_of(branching), *tail()), "RandomStandardNormal"),
    (lambda: sequential(layer_of(tf.random.shuffle), *tail()), "RandomShuffle"),
    (lambda: sequential(Hidden(), *tail()), "does not see, counter of layer hidden"),
    (OwnStep, "overrides train_step"),
    (OwnLoss, "overrides compute_loss"),
    (lambda: Plain(keras.metrics.Mean(name="seen")), "has a metric, seen, in"),
    (lambda: sequential(L.Conv2D(2, 3, dtype="mixed_float16"), *tail()), "in float16"),
    (lambda: sequential(*tail()[:-1], L.Dense(5, dtype="float64")), "of type float64"),
    (lambda: sequential(*tail(), L.Activation("sigmoid")), "remove the sigmoid"),
    (lambda: sequential(*tail(), L.Softmax()), "remove the softmax"),
    (Squashed, "remove the sigmoid"),
    (SquashedByHand, "remove the sigmoid"),
    (lambda: sequential(layer_of(lambda x: {}["boom"]), *tail()), "raised KeyError: boom"),
]


@pytest.mark.parametrize(("make", "reason"), REFUSED)
def test_unsupported_models_are_refused_in_two_lines(make, reason):
    with pytest.raises(UserError, match=reason) as raised:
        checked(make())
    assert len(str(raised.value).splitlines()) <= 2
    assert "mine:net" in str(raised.value)


class Noise(L.Layer):
    def call(self, x, training=False):
        return x + keras.random.normal(keras.ops.shape(x)) if training else x


SOUND = [
    lambda: sequential(*tail()),
    lambda: sequential(*tail(), L.ReLU()),
    lambda: sequential(*tail()[:-1], L.Dense(5, kernel_initializer="zeros")),
    lambda: sequential(*tail()[:-1], L.Dense(5, bias_initializer="ones", activation="relu")),
    lambda: sequential(*tail(), L.Activation("tanh")),
    lambda: sequential(Noise(), L.GaussianNoise(0.1), L.SpatialDropout2D(0.2), *tail()),
    lambda: sequential(L.RandomFlip(), L.RandomRotation(0.1), L.RandomContrast(0.2), *tail()),
    lambda: sequential(L.RandAugment(value_range=(0, 255)), L.RandomErasing(), *tail()),
    lambda: sequential(L.Reshape((8, 8)), L.LSTM(4, dropout=0.1), L.Dense(5)),
    lambda: sequential(L.Lambda(lambda x: x * 2), L.GroupNormalization(1), *tail()),
    Plain,
]


@pytest.mark.parametrize("make", SOUND)
def test_sound_models_are_not_refused(make):
    checked(make())


def test_a_model_with_an_integer_input_is_traced_with_integers():
    scaled = sequential(L.Rescaling(1 / 255), *tail(), dtype="uint8")
    checked(scaled, tf.uint8)
    with pytest.raises(UserError, match="remove the sigmoid"):
        checked(sequential(L.Rescaling(1 / 255), *tail(), L.Activation("sigmoid"), dtype="uint8"))


def test_on_replicas_hidden_variables_are_still_found(cpus):
    with tf.distribute.MirroredStrategy(cpus[:2]).scope():
        checked(sequential(*tail()))
        with pytest.raises(UserError, match="counter of layer hidden"):
            checked(sequential(Hidden(), *tail()))


def transfer(trainable):
    images = keras.Input((8, 8, 1))
    base = sequential(L.Conv2D(2, 3), L.BatchNormalization())
    base.name, base.trainable = "base", trainable
    x = L.GlobalAveragePooling2D()(base(images, training=False))
    return keras.Model(images, L.Dense(5)(x))


def test_a_trained_base_that_is_called_for_inference_warns(caplog):
    for make in (lambda: transfer(trainable=False), lambda: sequential(*tail()), Plain):
        checked(make())
    assert caplog.messages == []
    checked(transfer(trainable=True))
    (message,) = caplog.messages
    assert message.startswith("--model=mine:net calls base with training=False, which Keras")
    assert message.endswith("are trained. Set base.trainable = False to keep them.")
