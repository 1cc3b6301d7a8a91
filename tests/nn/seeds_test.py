"""Seeds of random layers: they are found in a model, and set for each replica."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.nn.ghost_batch_norm import GhostBatchNormalization, collect_statistics
from trainer.nn.seeds import global_generator, keras_seed, seed_states, values


def nested_model():
    inner = keras.Sequential([keras.Input((4,)), keras.layers.Dropout(0.5)])
    return keras.Sequential(
        [keras.Input((4,)), inner, keras.layers.Dense(3), keras.layers.GaussianNoise(0.1)]
    )


def test_every_random_layer_has_one_state_in_a_fixed_order():
    model = nested_model()
    states = seed_states(model)
    assert [tuple(state.shape) for state in states] == [(2,), (2,)]
    assert states == seed_states(model)
    assert states[0] is model.layers[0].layers[0].seed_generator.state
    assert states[1] is model.layers[2].seed_generator.state
    assert not {id(state) for state in states} & {id(weight) for weight in model.weights}


def test_a_model_without_randomness_has_no_states():
    assert seed_states(keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])) == []


@pytest.mark.parametrize(("name", "count"), [("MobileNet", 1), ("MobileNetV2", 0)])
def test_every_dropout_of_keras_applications_has_a_state(name, count):
    model = getattr(keras.applications, name)(input_shape=(32, 32, 3), weights=None, classes=3)
    dropouts = [layer for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    assert len(seed_states(model)) == len(dropouts) == count


def numbers(states, position, seed, order_version):
    first, rest = values(states, tf.constant(position, tf.int64), seed, order_version)
    return [tuple(value.numpy().tolist()) for value in (first, *rest)]


def test_version_1_keeps_the_masks_of_earlier_runs():
    assert numbers(3, 640, 5, 1)[1:] == [(640, (15 + i) << 16) for i in range(3)]
    largest = (2**47 - 1) // 3 - 1  # Of the seeds that earlier versions accepted with three layers.
    assert numbers(3, 640, largest, 1)[1:] == [(640, (3 * largest + i) << 16) for i in range(3)]


@pytest.mark.parametrize("seed", [2**47, 9 * 10**18, 2**63 - 1])
def test_version_1_takes_every_seed(seed):
    found = numbers(3, 640, seed, 1)[1:]
    assert [(low - ((3 * seed + i) << 16)) % 2**64 for i, (_, low) in enumerate(found)] == [0] * 3
    assert len({*found}) == 3


@pytest.mark.parametrize("seed", [0, 1, 2**31, 2**63 - 1])
def test_version_2_hashes_all_64_bits_of_seed_and_position(seed):
    # These include pairs that Keras' reduction to 31 bits alone could not distinguish.
    places = [(p, s) for p in (0, 32, 2**31 - 2, 2**40) for s in (seed, seed ^ 2**40, seed ^ 1)]
    found = [pair for p, s in places for pair in numbers(4, p, s, 2)]
    reduced = {tuple(number % (2**31 - 2) for number in pair) for pair in found}
    assert len(reduced) == len(places) * 5
    assert found == [pair for p, s in places for pair in numbers(4, p, s, 2)]


def test_layers_do_not_share_keys_with_the_global_generator():
    for version in (1, 2):
        found = numbers(50, 64, 3, version)
        assert len(set(found)) == 51
        # The global key does not depend on the number of layers; version 1 spaces the others by it.
        assert numbers(60, 64, 3, version)[0] == found[0]
    assert numbers(60, 64, 3, 2)[:51] == numbers(50, 64, 3, 2)


def test_the_global_generator_counts_up():
    state = global_generator().state
    with keras.StatelessScope(state_mapping=[(state, tf.constant([7, 40], tf.int64))]) as scope:
        drawn = [keras.random.normal(()).numpy() for _ in range(3)]
        assert scope.get_current_value(state).numpy().tolist() == [7, 43]
    assert len(set(drawn)) == 3


class TestUnderStatelessScope:
    """Masks, statistics and gradients are per replica, and variables do not change."""

    @pytest.fixture
    def replicas(self, cpus):
        """Returns a model, and a function from seeds to outputs, sums and gradient by replica."""
        strategy = tf.distribute.MirroredStrategy(cpus[:2])
        with strategy.scope():
            model = keras.Sequential(
                [
                    keras.Input((4,)),
                    GhostBatchNormalization(8),
                    keras.layers.Dropout(0.5),
                    keras.layers.Dense(64, kernel_initializer="ones"),
                    keras.layers.Dropout(0.5),
                ]
            )
        images = tf.random.stateless_normal([8, 4], [0, 1])

        def one_replica(seed):
            values = [(state, tf.stack([seed, i])) for i, state in enumerate(seed_states(model))]
            with (
                keras.StatelessScope(state_mapping=values),
                collect_statistics() as collected,
                tf.GradientTape() as tape,
            ):
                outputs = model(images, training=True)
                loss = tf.reduce_sum(outputs)
            (statistics,) = collected
            gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
            return outputs, statistics.mean_sum, gradients[2]

        @tf.function
        def run(seeds):
            per_replica = strategy.run(one_replica, (seeds,))
            return [strategy.experimental_local_results(value) for value in per_replica]

        def call(seeds):
            distributed = strategy.experimental_distribute_values_from_function(
                lambda context: tf.constant(seeds[context.replica_id_in_sync_group], tf.int64)
            )
            return run(distributed)

        return model, call

    def test_masks_depend_on_the_values(self, replicas):
        model, run = replicas
        before = [state.numpy() for state in seed_states(model)]
        different, _, gradients = run([1, 2])
        same, *_ = run([5, 5])
        again, *_ = run([1, 2])
        assert not np.array_equal(different[0] == 0, different[1] == 0)
        np.testing.assert_array_equal(same[0], same[1])
        np.testing.assert_array_equal(different[0], again[0])
        for state, value in zip(seed_states(model), before, strict=True):
            np.testing.assert_array_equal(state.numpy(), value)
        # Each replica has gradients, which depend on its own mask.
        assert np.abs(gradients[0]).max() > 0
        assert not np.array_equal(gradients[0], gradients[1])

    def test_statistics_are_collected_and_weights_do_not_change(self, replicas):
        model, run = replicas
        before = model.get_weights()
        _, mean_sums, _ = run([1, 2])
        images = tf.random.stateless_normal([8, 4], [0, 1])
        for mean_sum in mean_sums:
            np.testing.assert_allclose(mean_sum, tf.reduce_mean(images, axis=0), atol=1e-6)
        for weight, value in zip(model.get_weights(), before, strict=True):
            np.testing.assert_array_equal(weight, value)


def test_keras_gets_a_small_seed_unchanged_and_32_bits_of_a_larger_one():
    assert [keras_seed(seed) for seed in (0, 1, 2**31 - 1)] == [0, 1, 2**31 - 1]
    large = [2**31, 2**32, 2**32 + 1, 2**62, 2**63 - 1]
    found = [keras_seed(seed) for seed in large]
    assert len(set(found)) == len(large)
    assert all(0 <= seed < 2**32 for seed in found)
    keras.utils.set_random_seed(max(found))  # numpy raises an error above 32 bits.
