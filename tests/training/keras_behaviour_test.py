"""Keras' own behaviour in an update: randomness, constraints, state, inference and losses."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.support.steps import (
    IMAGES,
    devices,
    run,
    step_on,
    strategy_of,
    tiny,
    weights,
)
from trainer.errors import UserError
from trainer.nn import seeds
from trainer.nn.ghostify import ghostify
from trainer.nn.losses import TrainingLoss
from trainer.training.gradients import GradientFunction
from trainer.training.step import TrainingStep


def test_dropout_follows_the_position_and_differs_between_replicas(cpus):
    def accumulate(replicas, seed=0):
        with (strategy := strategy_of(cpus, replicas)).scope():
            model = tiny(ghost=16, dropout=0.5)
        step = TrainingStep(
            strategy, model, optimizer="sgd", weight_decay=0.0, loss=TrainingLoss(), seed=seed
        )
        return run(step, 32, [(64, 0.1, 0.0)] * 2)["loss"].tolist()

    losses = accumulate(1)
    assert accumulate(1) == losses
    assert accumulate(1, seed=1) != losses
    # Replica 1 starts at position 32, as the second micro-batch of one replica does: same masks.
    np.testing.assert_allclose(accumulate(2), losses, atol=1e-5)


class Counting(keras.layers.Layer):
    """A layer with a state that every training call moves."""

    def build(self, input_shape):
        self.count = self.add_weight(name="count", shape=(), trainable=False)

    def call(self, inputs):
        self.count.assign_add(1.0)
        return inputs


def test_a_state_that_accumulation_would_lose_is_refused(cpus):
    def model_of():
        inputs = keras.Input((6, 6, 1), dtype="uint8")
        x = Counting()(keras.layers.Rescaling(1 / 64)(inputs))
        return keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(x)))

    step = step_on(strategy_of(cpus, 1), model_of)
    with pytest.raises(
        UserError, match=r"^the model changes counting.*count as it trains"
    ) as error:
        run(step, 64, [(64, 0.1, 0.0)])
    assert len(str(error.value).splitlines()) <= 2


@pytest.fixture(scope="module")
def free():
    """The weights after an update without constraints."""
    plain = step_on(strategy_of(devices(), 1), weight_decay=0.0)
    run(plain, 32, [(64, 0.5, 0.9)])
    return weights(plain)


@pytest.mark.parametrize("replicas", [1, 2])
def test_constraints_hold_after_every_update_as_in_keras(cpus, replicas, free):
    def constrained():
        model = tiny(ghost=16)
        kernel, dense = model.layers[1], model.layers[-1]
        kernel.kernel.constraint = keras.constraints.MaxNorm(0.1, axis=[0, 1, 2])
        dense.kernel.constraint = keras.constraints.NonNeg()
        return model

    step = step_on(strategy_of(cpus, replicas), constrained, weight_decay=0.0)
    run(step, 32, [(64, 0.5, 0.9)])
    held = weights(step)
    norms = np.sqrt(np.sum(np.square(free[0]), (0, 1, 2)))
    np.testing.assert_allclose(held[0], free[0] * np.minimum(1, 0.1 / norms), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(held[-2], np.maximum(free[-2], 0), rtol=1e-5, atol=1e-7)
    assert norms.max() > 0.1  # Both constraints had something to do.
    assert free[-2].min() < 0


class Drawn(keras.layers.Layer):
    """Returns two numbers that Keras' global generator draws in training."""

    def call(self, x, training=False):
        drawn = [keras.random.normal(()), keras.random.normal(())] if training else [0.0, 0.0]
        return x[:, :2] * 0 + keras.ops.stack(drawn)


def drawing():
    layers = [keras.layers.Rescaling(1 / 64), keras.layers.Flatten(), Drawn()]
    return keras.Sequential([keras.Input((6, 6, 1), dtype="uint8"), *layers])


@pytest.mark.parametrize("order_version", [1, 2])
def test_keras_global_randomness_follows_seed_and_position(order_version):
    model, state = drawing(), seeds.global_generator().state

    @tf.function
    def draw(position, seed):
        options = {"loss": TrainingLoss(), "order_version": order_version}
        backward = GradientFunction(model, seed=seed, **options)
        return backward._forward(tf.constant(IMAGES[:4]), position)[0][0]

    before = state.numpy()
    places = [(p, s) for s in (0, 1, 2**31 - 1) for p in (0, 32, 64, 933_199, 2**31 - 2, 2**40)]
    found = [draw(tf.constant(p, tf.int64), s).numpy() for p, s in places]
    assert len({number for pair in found for number in pair}) == 2 * len(places)
    again = [draw(tf.constant(p, tf.int64), s).numpy() for p, s in places]
    np.testing.assert_array_equal(found, again)
    np.testing.assert_array_equal(state.numpy(), before)


class Inference(keras.Model):
    """Calls one batch norm for inference, one in training and one both ways."""

    def __init__(self):
        super().__init__()
        self.still, self.moved, self.both = (keras.layers.BatchNormalization() for _ in range(3))
        self.dense = keras.layers.Dense(3)

    def call(self, x, training=None):
        x = self.moved(keras.ops.mean(x, axis=(1, 2)), training=training)
        x = self.both(self.both(x, training=training), training=False)
        return self.dense(self.still(x, training=False))


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_batch_norm_that_is_called_for_inference_does_not_move(cpus, replicas):
    def subclassed():
        model = Inference()
        model(IMAGES[:4].astype(np.float32))
        return ghostify(model, ghost_batch_size=16, decay=0.9, kernel="fused")

    step = step_on(strategy_of(cpus, replicas), subclassed)
    run(step, 32, [(64, 0.1, 0.9)] * 2)
    mean, variance = step.model.still.moving_mean.numpy(), step.model.still.moving_variance.numpy()
    assert (mean[0], variance[0]) == (0, 1)
    assert step.model.still.gamma.numpy() != 1  # Its scale is trained, as Keras' fit does.
    for layer in (step.model.moved, step.model.both):
        assert layer.moving_mean.numpy() != 0


class Unused(keras.Model):
    def __init__(self):
        super().__init__()
        self.norm, self.dense = keras.layers.BatchNormalization(), keras.layers.Dense(3)
        self.norm.build((None, 3))

    def call(self, x, training=None):
        return self.dense(keras.ops.mean(x, axis=(1, 2)))


class InBranch(keras.layers.Layer):
    def __init__(self):
        super().__init__()
        self.norm = keras.layers.BatchNormalization()

    def build(self, shape):
        self.norm.build(shape)

    def call(self, x, training=None):
        return tf.cond(tf.reduce_mean(x) > 0, lambda: self.norm(x, training=training), lambda: x)


class Clips(keras.layers.Layer):
    def build(self, shape):
        self.scale = self.add_weight(shape=(), initializer="ones")

    def call(self, x):
        self.scale.assign(keras.ops.clip(self.scale, 0, 1))
        return x * self.scale


@pytest.mark.parametrize(
    ("layer", "reason"), [(InBranch, "tf.cond or loop of its own"), (Clips, "changes .* as it")]
)
def test_state_that_an_update_cannot_follow_is_refused(cpus, layer, reason):
    def with_layer():
        model = small(layer())
        return ghostify(model, ghost_batch_size=16, decay=0.9, kernel="fused")

    with pytest.raises(UserError, match=reason):
        run(step_on(strategy_of(cpus, 1), with_layer), 32, [(64, 0.1, 0.9)])


def small(*layers, **options):
    dense = keras.layers.Dense(3, **options)
    flat = [keras.Input((6, 6, 1)), keras.layers.Rescaling(1 / 64), keras.layers.Flatten()]
    return keras.Sequential([*flat, *layers, dense])


def test_losses_that_are_no_scalars_are_summed_as_in_keras_fit(cpus):
    keras.utils.set_random_seed(0)
    models = [small(kernel_regularizer=r) for r in (tf.square, lambda w: tf.reduce_sum(w * w))]
    models[1].set_weights(models[0].get_weights())
    for model in models:
        run(step_on(strategy_of(cpus, 1), lambda model=model: model), 32, [(64, 0.1, 0.9)])
    for found, wanted in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_a_batch_norm_that_is_never_called_is_refused(cpus):
    def unused():
        model = Unused()
        model(IMAGES[:4].astype(np.float32))
        return ghostify(model, ghost_batch_size=16, decay=0.9, kernel="fused")

    with pytest.raises(UserError, match=r"never calls its layer \S*batch_normalization"):
        run(step_on(strategy_of(cpus, 1), unused), 32, [(64, 0.1, 0.9)])
