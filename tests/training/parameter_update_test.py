"""Tests of clipping the gradient of a whole batch, and of the optimizer's metric."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.support.steps import (
    IMAGES,
    LABELS,
    UPDATES,
    iterator_from,
    run,
    step_on,
    strategy_of,
    tiny,
    weights,
)
from trainer.nn.freezing import freeze
from trainer.schedule.layout import Layout
from trainer.schedule.noise_scale import Setting
from trainer.schedule.stretch import Stretch

SGD = {"optimizer": "sgd", "weight_decay": 0.0}
LAYOUTS = [(1, 16, 1), (1, 64, 3), (4, 16, 1)]


def regularized():
    return tiny(ghost=16, regularizer=keras.regularizers.L2(0.25))


def stretched(step, b, updates):
    """Returns the metrics of `updates` (size, ε, m) of one size, in one stretch."""
    settings = tuple(Setting(*update) for update in updates)
    replicas = step.strategy.num_replicas_in_sync
    layout = Layout(replicas, b, updates[0][0] // (replicas * b))
    return step.run(iterator_from(0, b), Stretch(0, settings, layout))


@pytest.fixture(scope="module")
def unclipped():
    """The parameters before and after an update without limit, and the norm of its gradient."""
    cpu = tf.config.list_logical_devices("CPU")[0].name
    step = step_on(strategy_of([cpu], 1), regularized, **SGD)
    before = [p.numpy() for p in step.parameters]
    found = stretched(step, 64, [(128, 0.5, 0.0)])
    assert (found.clipped, found.metric_sq_norms) == (None, None)  # Nothing to count.
    return before, [p.numpy() for p in step.parameters], found.gradient_norm[0]


@pytest.mark.parametrize(("replicas", "b", "lanes"), LAYOUTS)
def test_the_gradient_of_the_whole_batch_is_clipped_once(cpus, unclipped, replicas, b, lanes):
    before, after, norm = unclipped
    moved = np.concatenate([(x - y).ravel() for x, y in zip(before, after, strict=True)])
    assert np.linalg.norm(moved) == pytest.approx(0.5 * norm, rel=1e-4)  # Regularizers included.
    for share in (0.4, 1.1) if b == 64 else (0.4,):
        options = {**SGD, "clip_norm": share * norm, "lanes": lanes}
        step = step_on(strategy_of(cpus, replicas), regularized, **options)
        found = stretched(step, b, [(128, 0.5, 0.0)])
        assert found.gradient_norm[0] == pytest.approx(norm, rel=1e-4)  # It stays unclipped.
        assert found.clipped.tolist() == [share < 1]
        for ours, old, new in zip(step.parameters, before, after, strict=True):
            np.testing.assert_allclose(ours, old + min(1, share) * (new - old), atol=1e-6)


def test_weight_decay_is_neither_measured_nor_clipped(cpus, unclipped):
    before, after, norm = unclipped
    options = {"optimizer": "sgd", "weight_decay": 0.5, "clip_norm": 0.4 * norm}
    step = step_on(strategy_of(cpus, 1), regularized, **options)
    found = run(step, 64, [(128, 0.5, 0.0)])
    assert found["gradient_norm"][0] == pytest.approx(norm, rel=1e-4)
    for ours, old, new in zip(step.parameters, before, after, strict=True):
        pull = 0.5 * 0.5 * old if old.ndim > 1 else 0
        np.testing.assert_allclose(ours, old + 0.4 * (new - old) - pull, atol=1e-6)


def test_frozen_layers_have_no_part_in_the_norm(cpus):
    def frozen():
        model = tiny(ghost=16)
        freeze(model, "(?!dense)")
        return model

    step = step_on(strategy_of(cpus, 1), frozen, **SGD, clip_norm=0.01, layer_decay=0.5)
    before = [p.numpy() for p in step.parameters]
    found = stretched(step, 64, [(128, 1.0, 0.0)])
    moved = [p.numpy() - old for p, old in zip(step.parameters, before, strict=True)]
    assert len(moved) == 2
    assert found.clipped.tolist() == [True]
    assert np.sqrt(sum(np.sum(x**2) for x in moved)) == pytest.approx(0.01, rel=1e-3)


def test_the_layout_changes_nothing_with_adamw_and_clipping(cpus):
    updates = [(size, rate / 10, momentum) for size, rate, momentum in UPDATES[1:5]]
    options = {"optimizer": "adamw", "weight_decay": 0.1, "clip_norm": 0.3}
    reference = None
    for replicas, b, lanes in ((1, 64, 3), (2, 16, 1)):
        step = step_on(strategy_of(cpus, replicas), lanes=lanes, **options)
        found = [run(step, b, updates)["loss"], *weights(step)]
        reference = reference or found
        for ours, theirs in zip(found, reference, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize(("replicas", "b"), [(1, 32), (2, 16)])
def test_squares_in_adams_metric_are_those_of_the_micro_batches_gradients(cpus, replicas, b):
    options = {"optimizer": "adamw", "label_smoothing": 0.0}
    step = step_on(strategy_of(cpus, replicas), regularized, **options)
    iterator, layout = iterator_from(0, b), Layout(replicas, b, 64 // (replicas * b))
    setting = Setting(64, 0.01, 0.9)
    first = step.run(iterator, Stretch(0, (setting,), layout))
    assert [x.tolist() for x in first.metric_sq_norms] == [[0], [0]]
    step.run(iterator, Stretch(64, (setting,), layout))
    # The metric of the third update is that after the second, over all of its micro-batches.
    metric = np.concatenate(
        [1 / (np.sqrt(v.numpy() / ones.numpy()) + 1e-8).ravel() for _, v, _, ones in step.slots]
    )
    model = regularized()
    for ours, theirs in zip(model.weights, step.model.weights, strict=True):
        ours.assign(theirs.numpy())

    def gradient(start):
        with tf.GradientTape() as tape:
            logits = model(IMAGES[start : start + b], training=True)
            losses = keras.losses.sparse_categorical_crossentropy(
                LABELS[start : start + b], logits, True
            )
            loss = tf.reduce_mean(losses)
        parts = tape.gradient(loss, [v.value for v in model.trainable_variables])
        return np.concatenate([part.numpy().ravel() for part in parts]).astype(np.float64)

    parts = [gradient(start) for start in range(128, 192, b)]
    third = step.run(iterator, Stretch(128, (setting,), layout))
    wanted = np.mean([metric @ part**2 for part in parts]), metric @ np.mean(parts, axis=0) ** 2
    for found, value in zip(third.metric_sq_norms, wanted, strict=True):
        np.testing.assert_allclose(found, [value], rtol=1e-4)
