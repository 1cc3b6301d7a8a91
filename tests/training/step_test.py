"""The step: layouts, checkpoints, updates, statistics and what is measured."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.eager import context

from tests.support.steps import (
    IMAGES,
    LABELS,
    UPDATES,
    averaging_step,
    dense,
    devices,
    iterator_from,
    run,
    step_on,
    strategy_of,
    tiny,
    weights,
    with_slots,
)
from trainer.run_dir.checkpoints import Checkpoints
from trainer.schedule.layout import Layout
from trainer.schedule.noise_scale import Setting
from trainer.schedule.stretch import Stretch


@pytest.fixture(scope="module")
def reference():
    step = step_on(strategy_of(devices(), 1))
    return run(step, 64), weights(step)


@pytest.mark.parametrize(
    ("replicas", "b", "lanes"),
    [(1, 16, 2), (1, 32, 2), (1, 64, 3), (2, 32, 2), (4, 16, 1)],
)
def test_the_layout_changes_nothing_that_is_learned(cpus, replicas, b, lanes, reference):
    step = step_on(strategy_of(cpus, replicas), lanes=lanes)
    found, wanted = run(step, b), reference[0]
    np.testing.assert_allclose(found["loss"], wanted["loss"], atol=1e-5)
    np.testing.assert_allclose(found["top1"], wanted["top1"], atol=1e-6)
    np.testing.assert_allclose(found["gradient_norm"], wanted["gradient_norm"], rtol=1e-4)
    for ours, theirs in zip(weights(step), reference[1], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert step.traces == 1


# A tenth of the rate for adam, whose directions have the size of signs.
SMALL_RATES = [(size, rate / 10, momentum) for size, rate, momentum in UPDATES]


@pytest.mark.parametrize(("optimizer", "replicas", "b"), [("adam", 2, 32), ("lars", 4, 16)])
def test_the_layout_changes_nothing_for_the_others(cpus, optimizer, replicas, b):
    updates = UPDATES if optimizer == "lars" else SMALL_RATES
    found = []
    for count, size in ((1, 64), (replicas, b)):
        strategy = strategy_of(cpus, count)
        step = step_on(strategy, optimizer=optimizer)
        before = weights(step)
        found.append([run(step, size, updates)["loss"], *with_slots(step)])
        parameters = [variable.value for variable in step.model.trainable_variables]
        for variable in (*parameters, *tf.nest.flatten(step.slots)):
            copies = strategy.experimental_local_results(variable)
            assert len(copies) == count
            for copy in copies[1:]:
                np.testing.assert_array_equal(copy, copies[0])
    for new, old in zip(weights(step), before, strict=True):
        assert np.abs(new - old).max() > 1e-3
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize(
    ("optimizer", "replicas"), [("momentum", 1), ("lars", 1), ("adam", 1), ("lamb", 2)]
)
def test_from_a_checkpoint_it_goes_on_as_before(cpus, tmp_path, optimizer, replicas):
    # Moving statistics are kept as all weights are, so that one optimizer is enough for them.
    model_of = (lambda: tiny(ghost=16)) if optimizer == "momentum" else dense

    def new_step():
        step = step_on(strategy_of(cpus, replicas), model_of, optimizer=optimizer)
        variables = {
            "weights": [variable.value for variable in step.model.weights],
            "slots": tf.nest.flatten(step.slots),
        }
        return step, Checkpoints(tmp_path, variables, keep=1)

    step, checkpoints = new_step()
    run(step, 32, SMALL_RATES[:3])
    checkpoints.save(3, {})
    checkpoints.wait()
    again, checkpoints = new_step()
    checkpoints.restore()
    for one in (step, again):
        run(one, 32, SMALL_RATES[3:])
    for ours, theirs in zip(with_slots(again), with_slots(step), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_every_sum_is_read_before_it_is_zeroed(cpus):
    """Seen broken by Grappler: a replica's loss was lost once in some hundred updates."""
    step = step_on(strategy_of(cpus, 2))
    context.context().enable_graph_collection()
    try:
        run(step, 64, [(128, 0.1, 0.9)])
        functions = context.context().export_run_metadata().function_graphs
    finally:
        context.context().disable_graph_collection()
    nodes = [n for f in functions for graph in f.partition_graphs for n in graph.node]
    inputs = {n.name: [i.lstrip("^").split(":")[0] for i in n.input] for n in nodes}

    def before(name):
        """All nodes of the same device that `name` waits for."""
        found, front = set(), [name]
        while front:
            new = [i for i in inputs[front.pop()] if i not in found]
            found.update(new)
            front += new
        return found

    zeroings = [n for n in nodes if n.op == "AssignVariableOp" and "zeros_like" in n.input[1]]
    reads = {n.input[0]: n.name for n in nodes if n.op == "ReadVariableOp"}
    # On two replicas: five parameters, mean and variance, loss, hits and squares.
    assert len(zeroings) == 2 * (5 + 2 + 3)
    for zeroing in zeroings:
        assert reads[zeroing.input[0]] in before(zeroing.name), zeroing


def test_an_update_is_one_collective(cpus):
    """Counts the all-reduces if replicas use collectives, as on several hosts: one, of all sums.

    An average of the parameters adds none.
    """
    strategy = tf.distribute.MultiWorkerMirroredStrategy._from_local_devices(cpus[:2])
    step = averaging_step(strategy, decay=0.9, base_batch_size=64)
    graph = step._compile(iterator_from(0, 32)).get_concrete_function().graph
    sizes = [
        [dimension.size for dimension in node.attr["_output_shapes"].list.shape[0].dim]
        for function in graph.as_graph_def(add_shapes=True).library.function
        for node in function.node_def
        if node.op.startswith("Collective")
    ]
    parameters = sum(np.size(v) for v in step.model.trainable_variables)
    # Means and variances of four channels; loss, hits and squares.
    assert sizes == [[parameters + 2 * 4 + 3]] * 2


def test_updates_are_those_of_keras(cpus):
    """One ghost batch an update is plain batch norm, and Keras' own optimizer does the same."""
    step = step_on(
        strategy_of(cpus, 1), lambda: tiny(ghost=64), weight_decay=0.0, label_smoothing=0.0
    )
    found = run(step, 64, [(64, 0.2, 0.9)] * 5)
    model = tiny()
    sgd = keras.optimizers.SGD(0.2, momentum=0.9)
    losses = []
    for i in range(5):
        x, y = IMAGES[64 * i : 64 * (i + 1)], LABELS[64 * i : 64 * (i + 1)]
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(
                keras.losses.sparse_categorical_crossentropy(
                    y, model(x, training=True), from_logits=True
                )
            )
        gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
        sgd.apply(gradients, model.trainable_variables)
        losses.append(float(loss))
    np.testing.assert_allclose(found["loss"], losses, rtol=1e-5)
    for ours, theirs in zip(weights(step), model.weights, strict=True):
        # Keras' moving statistics hold what they started with, at weight 0.9⁵ after five batches.
        start, left = float(theirs.name == "moving_variance"), 0.9**5
        debiased = (theirs.numpy() - left * start) / (1 - left)
        wanted = debiased if theirs.name.startswith("moving") else theirs.numpy()
        np.testing.assert_allclose(ours, wanted, atol=2e-5)


def statistics(step):
    """The moving mean and variance of the only batch norm."""
    return [v.numpy() for v in step.model.non_trainable_variables if v.name.startswith("moving")]


def of_ghost_batches(model, count):
    """Returns the batch norm's inputs of ghost batches of 16: [count, values, channels]."""
    first = keras.Model(model.inputs, model.layers[1].output)
    return first(IMAGES[: 16 * count]).numpy().reshape(count, -1, 4)


def test_moving_statistics_are_the_weighted_mean_of_the_ghost_batches_seen(cpus):
    """A learning rate of 0 leaves the activations alone, so that all statistics can be listed."""
    step = step_on(strategy_of(cpus, 1))
    run(step, 64, [(128, 0.0, 0.9)] * 2 + [(320, 0.0, 0.9)])
    ghosts = of_ghost_batches(step.model, 36)
    # Within an update all ghost batches count alike: by 1 − dⁿ over n.
    shares = [0.9**28 * (1 - 0.9**8) / 8] * 8 + [0.9**20 * (1 - 0.9**8) / 8] * 8
    shares += [(1 - 0.9**20) / 20] * 20
    for moving, seen in zip(statistics(step), (ghosts.mean(1), ghosts.var(1)), strict=True):
        np.testing.assert_allclose(moving, np.average(seen, 0, shares), rtol=1e-5)


def test_statistics_that_were_loaded_decay_from_what_they_were(cpus):
    def pretrained():
        model = tiny(ghost=16)
        model.layers[2].moving_mean.assign([5.0, 0.0, 0.0, 0.0])
        return model

    fresh, step = step_on(strategy_of(cpus, 1)), step_on(strategy_of(cpus, 1), pretrained)
    assert (step.starts, fresh.starts) == ({"0": None}, {"0": 0})
    run(step, 64, [(128, 0.0, 0.9)])
    seen = of_ghost_batches(step.model, 8).mean((0, 1))
    wanted = 0.9**8 * np.array([5.0, 0, 0, 0]) + (1 - 0.9**8) * seen
    np.testing.assert_allclose(statistics(step)[0], wanted, rtol=1e-5)


PLAIN = {"optimizer": "sgd", "label_smoothing": 0.0}


@pytest.fixture(scope="module")
def undecayed():
    """The weights before and after an update without decay or regularizers."""
    step = step_on(strategy_of(devices(), 1), weight_decay=0.0, **PLAIN)
    before = weights(step)
    run(step, 64, [(64, 0.1, 0.0)])
    return before, weights(step)


def test_weight_decay_is_coupled_and_for_kernels(cpus, undecayed):
    decayed = step_on(strategy_of(cpus, 1), weight_decay=0.5, **PLAIN)
    run(decayed, 64, [(64, 0.1, 0.0)])
    for old, without, with_decay in zip(*undecayed, weights(decayed), strict=True):
        pull = 0.1 * 0.5 * old if old.ndim > 1 else 0
        np.testing.assert_allclose(with_decay, without - pull, atol=1e-6)


@pytest.fixture(
    scope="module", params=[(1, 64, 1), (1, 16, 1), (1, 32, 2), (2, 16, 1)], ids="{0}".format
)
def regularized(request):
    """A step after an update with a regularizer, its micro-batch size and what it recorded."""
    replicas, b, lanes = request.param
    model_of = functools.partial(tiny, ghost=16, regularizer=keras.regularizers.L2(0.25))
    step = step_on(strategy_of(devices(), replicas), model_of, lanes=lanes, **PLAIN)
    return step, b, run(step, b, [(64, 0.1, 0.0)])


def test_squares_are_those_of_the_micro_batches_gradients(regularized):
    """Checks that the squares are of the data loss alone, and independent of moving statistics."""
    _, b, found = regularized
    model = tiny(ghost=16)

    def gradient(start, stop):
        with tf.GradientTape() as tape:
            logits = model(IMAGES[start:stop], training=True)
            loss = tf.reduce_mean(
                keras.losses.sparse_categorical_crossentropy(LABELS[start:stop], logits, True)
            )
        parts = tape.gradient(loss, [v.value for v in model.trainable_variables])
        return np.concatenate([part.numpy().ravel() for part in parts]).astype(np.float64)

    parts = [gradient(start, start + b) for start in range(0, 64, b)]
    micro_batch_sq_norm = np.mean([part @ part for part in parts])
    np.testing.assert_allclose(found["micro_batch_sq_norm"], [micro_batch_sq_norm], rtol=1e-4)
    whole = np.mean(parts, axis=0)
    np.testing.assert_allclose(found["batch_sq_norm"], [whole @ whole], rtol=1e-4)


def test_regularisation_losses_count_once_an_update(regularized, undecayed):
    step, *_ = regularized
    (kernel, *_), (theirs, *_) = undecayed
    # L2(c) is c · w², so its gradient is 2 c w; the step's own weight decay adds 0.01 w.
    ours = step.model.trainable_variables[0].numpy()
    np.testing.assert_allclose(ours, theirs - 0.1 * (0.5 + 0.01) * kernel, atol=1e-6)


def test_the_wait_for_input_is_measured(cpus):
    step = step_on(strategy_of(cpus, 1))

    def slow(*element):
        slept = tf.py_function(lambda: __import__("time").sleep(0.05), [], [])
        with tf.control_dependencies([slept]):
            return tf.nest.map_structure(tf.identity, element)

    fast = iterator_from(0, 64)
    index = tf.data.Dataset.range(0, 10**6, 64)
    dataset = index.map(
        lambda p: (tf.zeros([64, 6, 6, 1], tf.uint8), tf.zeros([64], tf.int64), p)
    ).map(slow)
    dataset = dataset.map(
        lambda x, y, p: (tf.ensure_shape(x, [64, 6, 6, 1]), tf.ensure_shape(y, [64]), p)
    )
    waiting = iter(dataset)
    stretch = Stretch(0, (Setting(128, 0.1, 0.9),) * 4, Layout(1, 64, 2))
    assert step.run(fast, stretch).input_wait < 0.2
    record = step.run(waiting, stretch)
    assert 0.3 < record.input_wait <= record.seconds
