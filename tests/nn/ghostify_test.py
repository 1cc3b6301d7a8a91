"""Conversion of every kind of Keras model: same weights and inference, other statistics."""

import pathlib
import re
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.src.applications import densenet

from trainer.errors import UserError
from trainer.nn.ghost_batch_norm import GhostBatchNormalization, collect_statistics
from trainer.nn.ghostify import ghostify, unghostify

BATCH = 4


def norm(**kwargs):
    return keras.layers.BatchNormalization(epsilon=1e-4, **kwargs)


def sequential():
    return keras.Sequential(
        [keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3), norm(center=False), norm(scale=False)]
    )


def nested():
    block = keras.Sequential([keras.Input((8, 8, 4)), norm(), keras.layers.ReLU()], name="block")
    images = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, padding="same")(images)
    x = keras.layers.Add()([block(x), block(norm(synchronized=True)(x))])  # This calls block twice.
    return keras.Model(images, keras.layers.Dense(2)(keras.layers.GlobalMaxPooling2D()(x)))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.convolution = keras.layers.Conv2D(4, 3)
        self.norms = [norm(), norm()]
        self.heads = {"norm": norm(), "dense": keras.layers.Dense(2)}

    def call(self, images, training=None):
        x = self.convolution(images)
        for layer in self.norms:
            x = layer(x, training=training)
        x = self.heads["norm"](keras.ops.mean(x, axis=(1, 2)), training=training)
        return self.heads["dense"](x)


def subclassed():
    model = Subclassed()
    model(np.zeros((1, 8, 8, 3)))
    return model


def mobile_net_v2():
    return keras.applications.MobileNetV2(input_shape=(32, 32, 3), weights=None, classes=3)


def dense_net():
    """Returns DenseNet121 with fewer blocks; registry_test.py converts all 121 norms."""
    return densenet.DenseNet([3, 2, 1, 2], input_shape=(32, 32, 3), weights=None, classes=3)


MODELS = {
    sequential: 2,
    nested: 2,
    subclassed: 3,
    mobile_net_v2: 52,
    dense_net: 1 + 2 * (3 + 2 + 1 + 2) + 3 + 1,
}


def images_for(model, batch=BATCH):
    size = 32 if "net" in model.name else 8
    return np.random.default_rng(0).normal(size=(batch, size, size, 3)).astype(np.float32)


def norms_of(model):
    layers = model._flatten_layers()
    return [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]


def make_ghost(model, kernel="fused", ghost_batch_size=BATCH):
    return ghostify(model, ghost_batch_size=ghost_batch_size, decay=0.9, kernel=kernel)


@pytest.mark.parametrize(("make", "count"), MODELS.items())
def test_every_layer_is_converted_and_nothing_else_changes(make, count):
    keras.utils.set_random_seed(1)
    model = make()
    images = images_for(model)
    names = [weight.path for weight in model.weights]
    weights = model.get_weights()
    inference = model(images, training=False).numpy()
    # With G = b on one replica, a ghost batch is the batch.
    training = model(images, training=True).numpy()
    trained = model.get_weights()
    momentums = [layer.momentum for layer in norms_of(model)]
    model.set_weights(weights)

    ghost = make_ghost(model)
    assert ghost is model
    assert len(norms_of(ghost)) == count
    for layer in norms_of(ghost):
        assert type(layer) is GhostBatchNormalization
        assert (layer.ghost_batch_size, layer.momentum, layer.kernel) == (BATCH, 0.9, "fused")
        assert not layer.synchronized
    assert [weight.path for weight in ghost.weights] == names
    for one, other in zip(ghost.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(ghost(images, training=False), inference)
    np.testing.assert_array_equal(ghost(images[:1]).shape, inference[:1].shape)

    for layer, momentum in zip(norms_of(ghost), momentums, strict=True):
        layer.momentum = momentum
    np.testing.assert_allclose(ghost(images, training=True), training, rtol=1e-3, atol=1e-3)
    for one, other in zip(ghost.get_weights(), trained, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kernel", ["fused", "reshaped"])
def test_ghost_batches_do_not_affect_each_other(kernel):
    """Compares the plain model on G images at a time with the ghost model on the whole batch."""
    keras.utils.set_random_seed(1)
    model = nested()
    images = images_for(model, 3 * BATCH)
    plain = np.concatenate([model(part, training=True) for part in np.split(images, 3)])
    ghost = make_ghost(model, kernel)(images, training=True)
    np.testing.assert_allclose(ghost, plain, rtol=1e-4, atol=1e-5)


def test_a_layer_that_is_called_twice_appends_statistics_twice():
    model = make_ghost(nested())
    with collect_statistics() as collected:
        model(images_for(model), training=True)
    inner, outer = norms_of(model.get_layer("block"))[0], collected[0].layer
    assert sorted(s.layer is inner for s in collected) == [False, True, True]
    assert outer in norms_of(model)


@pytest.mark.parametrize("make", [sequential, nested])
def test_files_load_with_ghost_layers(make, tmp_path: pathlib.Path):
    model = make_ghost(make(), "reshaped")
    images = images_for(model)
    model(images, training=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    assert [layer.get_config() for layer in norms_of(loaded)] == [
        layer.get_config() for layer in norms_of(model)
    ]
    np.testing.assert_array_equal(loaded(images), model(images))
    np.testing.assert_array_equal(loaded(images, training=True), model(images, training=True))


@pytest.mark.parametrize(
    ("make", "precision"),
    [
        *((make, "float32") for make in (sequential, nested, subclassed)),
        *((make, "mixed_bfloat16") for make in (sequential, nested, subclassed, mobile_net_v2)),
    ],
)
def test_unghostify_keeps_inference_and_files_do_not_name_this_package(
    make, precision, tmp_path: pathlib.Path
):
    outer = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        model = make_ghost(make())
    finally:
        keras.config.set_dtype_policy(outer)
    images = images_for(model)
    model(images, training=True)
    names, inference = [weight.path for weight in model.weights], model(images, training=False)
    assert unghostify(model) is model
    assert {type(layer) for layer in norms_of(model)} == {keras.layers.BatchNormalization}
    assert [weight.path for weight in model.weights] == names
    np.testing.assert_array_equal(model(images, training=False), inference)
    if make is subclassed:
        return
    model.save(tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as file:
        config = file.read("config.json").decode()
    assert "BatchNormalization" in config
    assert not re.search("ghost|crescendo|trainer", config, re.IGNORECASE)
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(images, training=False), inference)


def test_checkpoints_of_a_plain_model_restore(tmp_path: pathlib.Path):
    plain = nested()
    plain.set_weights([np.random.default_rng(0).normal(size=w.shape) for w in plain.weights])
    path = tf.train.Checkpoint(model=plain).write(tmp_path / "plain")
    ghost = make_ghost(nested())
    tf.train.Checkpoint(model=ghost).read(path).assert_consumed()
    for one, other in zip(ghost.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_ghost_models_work_under_mirrored_strategy_and_tf_function(cpus):
    strategy = tf.distribute.MirroredStrategy(cpus[:2])
    keras.utils.set_random_seed(1)
    with strategy.scope():
        model = make_ghost(subclassed())
    images = images_for(model, 2 * BATCH)

    def one_replica(images):
        with collect_statistics() as collected:
            outputs = model(images, training=True)
        return outputs, [statistics.mean_sum for statistics in collected]

    @tf.function
    def run(parts):
        return strategy.run(one_replica, (parts,))

    parts = strategy.experimental_distribute_values_from_function(
        lambda context: np.split(images, 2)[context.replica_id_in_sync_group]
    )
    outputs, sums = run(parts)
    outputs = np.concatenate(strategy.experimental_local_results(outputs))

    with collect_statistics() as collected:
        alone = model(images, training=True)
    np.testing.assert_allclose(outputs, alone, rtol=1e-4, atol=1e-5)
    assert len(sums) == len(collected) == 3
    for per_replica, statistics in zip(sums, collected, strict=True):
        total = sum(strategy.experimental_local_results(per_replica))
        np.testing.assert_allclose(total, statistics.mean_sum, rtol=1e-4, atol=1e-5)


def test_a_second_conversion_sets_new_sizes():
    model = make_ghost(make_ghost(sequential()), "reshaped", ghost_batch_size=2)
    assert {(layer.ghost_batch_size, layer.kernel) for layer in norms_of(model)} == {
        (2, "reshaped")
    }


def test_layers_that_cannot_be_converted_are_rejected():
    class Own(keras.layers.BatchNormalization):
        pass

    with pytest.raises(UserError, match=r"mine is a Own"):
        make_ghost(keras.Sequential([keras.Input((3,)), Own(name="mine")]))
    with pytest.raises(UserError, match="renorm"):
        make_ghost(keras.Sequential([keras.Input((3,)), norm(renorm=True)]))
    with pytest.raises(UserError, match=r"axis 1 .*channels last"):
        make_ghost(keras.Sequential([keras.Input((8, 8, 3)), norm(axis=1)]))
    with pytest.raises(UserError, match="ghost_batch_size -1"):
        make_ghost(sequential(), ghost_batch_size=-1)


def test_a_model_without_batch_normalization_is_unchanged():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    assert make_ghost(model) is model
