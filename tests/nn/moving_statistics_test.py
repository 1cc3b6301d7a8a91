import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.nn.ghost_batch_norm import GhostBatchNormalization
from trainer.nn.moving_statistics import starts, trained_norms, update_weights


def norm(ghost_batch_size=32, decay=0.99):
    layer = GhostBatchNormalization(ghost_batch_size, momentum=decay)
    layer.build((None, 3))
    return layer


LAYER = norm(4)


@given(
    decay=st.floats(0.001, 0.9999),
    batches=st.lists(st.integers(1, 400), min_size=1, max_size=20),
    start=st.integers(0, 10**12),
)
@settings(max_examples=60, deadline=None)
def test_the_weight_of_an_update_is_that_of_its_ghost_batches(decay, batches, start):
    """Checks its share in the final mean: d^(ghost batches after it) · (1 − dⁿ) / (1 − d^S)."""
    layer, shares, position = LAYER, np.zeros(0), 4 * start
    layer.momentum = decay
    for count in batches:
        position += 4 * count
        ((weight,),) = update_weights({"0": layer}, {"0": 4 * start}, 4 * count, [position])
        shares = np.append(shares * (1 - weight), weight)
    after = np.array([sum(batches[i + 1 :]) for i in range(len(batches))])
    wanted = decay**after * -np.expm1(np.array(batches) * np.log(decay))
    wanted /= -np.expm1(sum(batches) * np.log(decay))
    assert shares.sum() == pytest.approx(1)
    np.testing.assert_allclose(shares, wanted, rtol=1e-9, atol=1e-12)


def test_the_first_update_has_the_whole_weight():
    for decay in (0.0, 0.5, 0.999999):
        assert update_weights({"0": norm(32, decay)}, {"0": 64}, 96, [160]) == 1


def test_the_weights_of_a_settled_layer_depend_on_the_decay_alone():
    weights = update_weights(
        {"a": norm(), "b": norm(8, 0.9)}, {"a": None, "b": None}, 64, [64, 128]
    )
    np.testing.assert_allclose(weights, [[1 - 0.99**2, 1 - 0.9**8]] * 2)


def test_after_many_examples_the_start_does_not_count():
    far = 32 * 10**13  # This is a position that float32 cannot represent exactly.
    ((weight,),) = update_weights({"0": norm()}, {"0": 0}, 32, [far])
    assert weight == pytest.approx(0.01, rel=1e-12)


def test_new_layers_start_at_0_and_loaded_statistics_have_no_start():
    mean, variance = norm(), norm()
    mean.moving_mean.assign([0.0, 2.0, 0.0])
    variance.moving_variance.assign([1.0, 2.0, 1.0])
    assert starts({"0": norm(), "1": mean, "3": variance}) == {"0": 0, "1": None, "3": None}


def test_frozen_layers_count_in_the_numbering():
    frozen, plain, last = norm(), keras.layers.BatchNormalization(), norm()
    frozen.trainable = False
    model = keras.Sequential([keras.Input((3,)), frozen, plain, last])
    assert trained_norms(model) == {"1": last}
