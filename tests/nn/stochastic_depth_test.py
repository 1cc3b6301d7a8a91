"""Masks of stochastic depth: a slow reference, frequencies, and any layout of a batch."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.support.steps import IMAGES, LABELS
from trainer.nn.losses import TrainingLoss
from trainer.nn.models.resnet import resnet_50
from trainer.nn.models.vision_transformer import Size, vision_transformer
from trainer.nn.stochastic_depth import StochasticDepth, examples_from, mask, rates
from trainer.training.gradients import GradientFunction

_MASK = 2**64 - 1


def slow_splitmix64(word):
    z = (word + 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ z >> 27) * 0x94D049BB133111EB) & _MASK
    return z ^ z >> 31


def slow_mask(position, count, seed, number, rate):
    key = slow_splitmix64(slow_splitmix64((seed ^ 99080646 << 32) & _MASK) + number & _MASK)
    bits = [slow_splitmix64(key + p & _MASK) for p in range(position, position + count)]
    return [(each >> 40) / 2**24 >= rate for each in bits]


@pytest.mark.parametrize(("seed", "number", "position"), [(0, 0, 0), (7, 3, 10**12), (2**62, 1, 5)])
def test_masks_equal_a_slow_reference(seed, number, position):
    found = mask(tf.constant(position, tf.int64), 50, seed, number, 0.3)
    assert found.numpy().tolist() == slow_mask(position, 50, seed, number, 0.3)


def test_masks_have_the_rate_and_are_independent():
    """Checks means and correlations of layers, seeds and epochs, to four standard deviations."""
    n, rate = 40_000, 0.3
    drawn = [(0, 0, 0), (0, 1, 0), (1, 0, 0), (0, 0, 60_000)]
    masks = [
        mask(tf.constant(position, tf.int64), n, seed, number, rate).numpy().astype(float)
        for seed, number, position in drawn
    ]
    limit = 4 / np.sqrt(n)
    for each in masks:
        assert abs(each.mean() - (1 - rate)) < limit * np.sqrt(rate * (1 - rate))
        assert abs(np.corrcoef(each[1:], each[:-1])[0, 1]) < limit
    assert (np.abs(np.corrcoef(masks) - np.eye(4)) < limit).all()


def test_kept_branches_are_scaled_and_inference_keeps_all():
    layer = StochasticDepth(0.25, 2, "drop")
    shortcut, x = np.random.default_rng(0).normal(size=(2, 64, 3, 5)).astype(np.float32)
    with examples_from(tf.constant(640, tf.int64), 9):
        trained = layer([shortcut, x], training=True).numpy()
    kept = np.array(slow_mask(640, 64, 9, 2, 0.25))
    assert 0 < kept.sum() < 64
    wanted = shortcut + x * kept[:, None, None] / 0.75
    np.testing.assert_allclose(trained, wanted, atol=1e-6)
    np.testing.assert_array_equal(layer([shortcut, x]), shortcut + x)
    with pytest.raises(RuntimeError, match="drop needs examples_from"):
        layer([shortcut, x], training=True)


def test_rates_rise_evenly_as_in_deit():
    assert rates(0.1, 5) == pytest.approx([0, 0.025, 0.05, 0.075, 0.1])
    assert rates(0.2, 1) == [0]


def layers_of(model):
    return [layer for layer in model.layers if isinstance(layer, StochasticDepth)]


def test_both_branches_of_a_block_have_its_rate():
    model = vision_transformer(Size(8, 2, 3), 3, (6, 6, 1), 3, 0.2)
    found = [(each.name, each.rate, each.number) for each in layers_of(model)]
    wanted = [(2, 0.1, 2), (2, 0.1, 3), (3, 0.2, 4), (3, 0.2, 5)]
    assert found == [(f"block{b}_add{n % 2 + 1}", rate, n) for b, rate, n in wanted]
    plain = vision_transformer(Size(8, 2, 3), 3, (6, 6, 1), 3)
    assert not layers_of(plain)
    assert [w.path for w in model.weights] == [w.path for w in plain.weights]


def test_resnet_50_drops_branches_and_never_shortcuts():
    keras.utils.set_random_seed(0)
    model, plain = resnet_50((8, 8, 3), 4, 0.3), resnet_50((8, 8, 3), 4)
    found = [each.rate for each in layers_of(model)]
    assert found == pytest.approx([0.3 * block / 15 for block in range(1, 16)])
    assert not layers_of(plain)
    assert [w.path for w in model.weights] == [w.path for w in plain.weights]
    # With γ = 1 in its last norm, a block changes the output, unless it is dropped.
    (last,) = [each for each in layers_of(model) if each.number == 15]
    model.get_layer("stage4_block3_3_norm").gamma.assign(np.ones(2048))
    ends = [model.get_layer(f"stage4_block{block}_relu").output for block in (2, 3)]
    images = np.random.default_rng(0).normal(size=(32, 8, 8, 3)).astype(np.float32)
    with examples_from(tf.constant(0, tf.int64), 0):
        shortcut, with_drops = keras.Model(model.input, ends)(images, training=True)
    dropped = ~np.array(slow_mask(0, 32, 0, 15, last.rate))
    same = np.isclose(with_drops, shortcut, atol=1e-5).all(axis=(1, 2, 3))
    assert 3 < dropped.sum() < 20
    np.testing.assert_array_equal(same, dropped)


def transformer():
    """A transformer with stochastic depth, from uint8 images of 6×6."""
    keras.utils.set_random_seed(3)
    images = keras.Input((6, 6, 1), dtype="uint8")
    pixels = keras.layers.Rescaling(1 / 64, -2)(images)
    model = keras.Model(images, vision_transformer(Size(8, 2, 2), 3, (6, 6, 1), 3, 0.5)(pixels))
    head = model.get_layer("vision_transformer").get_layer("logits")
    head.kernel.assign(np.random.default_rng(3).normal(size=head.kernel.shape))
    return model


def test_parts_of_a_batch_have_its_masks():
    """Lanes, micro-batches and replicas are parts that differ by their position alone."""
    options = {"loss": TrainingLoss(), "seed": 5, "order_version": 2}
    function = GradientFunction(transformer(), **options)

    def sums(size):
        parts = [
            function(
                tf.constant(IMAGES[i : i + size]),
                tf.constant(LABELS[i : i + size]),
                tf.constant(10**11 + i, tf.int64),
            )
            for i in range(0, 64, size)
        ]
        return [np.sum(values, axis=0) for values in zip(*map(tf.nest.flatten, parts), strict=True)]

    whole = sums(64)
    for ours, theirs in zip(sums(16), whole, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
    shifted = function(
        tf.constant(IMAGES[:64]), tf.constant(LABELS[:64]), tf.constant(64, tf.int64)
    )
    assert abs(shifted.loss - whole[-2]) > 1e-3  # Other positions have other masks.
