"""The step compiled by XLA, here for CPUs: the same updates, fewer kernels, and what XLA lacks."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.support.runs import SHORT, as_of, digest, train
from tests.support.steps import (
    UPDATES,
    averaging_step,
    dense,
    devices,
    run,
    step_on,
    strategy_of,
    tiny,
    weights,
    with_slots,
)
from trainer.distributed.strategy import compiles_by_xla
from trainer.errors import UserError
from trainer.nn.ghostify import ghostify


def uses_xla(step):
    """Whether XLA compiled each stretch of the step, and not only was asked to."""
    graphs = [f.get_concrete_function().graph.as_graph_def() for f in step._stretches.values()]
    compiled = [
        [f.attr["_XlaMustCompile"].b for f in graph.library.function if "_XlaMustCompile" in f.attr]
        for graph in graphs
    ]
    return bool(compiled) and all(map(any, compiled))


SMALL_RATES = [(size, rate / 10, momentum) for size, rate, momentum in UPDATES]


def reshaped(**options):
    """The tiny model with the ghost batch norm that XLA needs."""
    return ghostify(tiny(**options), ghost_batch_size=16, decay=0.9, kernel="reshaped")


class Written(keras.layers.Layer):
    """Uses an operation on strings, which XLA does not have."""

    def call(self, inputs):
        length = tf.strings.length(tf.strings.as_string(inputs[0, 0, 0, 0]))
        return inputs * tf.cast(tf.minimum(length, 1), inputs.dtype)


def without_xla():
    inputs = keras.Input((6, 6, 1), dtype="uint8")
    scaled = Written()(keras.layers.Rescaling(1.0)(inputs))
    return keras.Model(inputs, dense()(scaled))


# These optimizers differ from momentum in the update of the parameters alone, so their model has no
# convolutions.
BY_OPTIMIZER = {"nesterov": dense, "lars": dense, "lamb": dense}


class Trained:
    """A step after updates: of one micro-batch up to 40, and growing."""

    def __init__(self, optimizer, replicas, b, *, by_xla, ahead=False):
        step = step_on(
            *(strategy_of(devices(), replicas), BY_OPTIMIZER.get(optimizer, reshaped)),
            optimizer=optimizer,
            clip_norm=0.5,
            timed=False,
            by_xla=by_xla,
            ahead=ahead,
        )
        updates = SMALL_RATES if optimizer in ("adamw", "lamb") else UPDATES
        if optimizer == "lamb":  # So that 128 examples may be one micro-batch.
            updates = [update for update in updates if update[0] != 320]
        self.step, self.records = step, run(step, b, updates)
        assert step.traces == 1
        assert uses_xla(step) == by_xla


# A step that several tests look at is traced once.
trained = functools.cache(Trained)


@pytest.mark.parametrize(
    ("optimizer", "replicas", "b"),
    [("momentum", 2, 32), ("nesterov", 4, 16), ("adamw", 1, 16), ("lars", 2, 32), ("lamb", 1, 128)],
)
def test_updates_are_the_same_with_xla(optimizer, replicas, b):
    """Batches of one micro-batch up to 40, which grow; of one replica up to four."""
    plain = trained(optimizer, 1, 64, by_xla=False)
    compiled = trained(optimizer, replicas, b, by_xla=True)
    wanted, found = plain.records, compiled.records
    for name in ("loss", "top1"):
        np.testing.assert_allclose(found[name], wanted[name], atol=1e-4)
    np.testing.assert_allclose(found["gradient_norm"], wanted["gradient_norm"], rtol=1e-3)
    for ours, theirs in zip(weights(compiled.step), weights(plain.step), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
    for variable in compiled.step.parameters:
        first, *others = compiled.step.strategy.experimental_local_results(variable)
        assert len(others) == replicas - 1
        for other in others:
            np.testing.assert_array_equal(first, other)


@pytest.mark.parametrize(
    ("optimizer", "replicas", "b", "by_xla"),
    [
        ("momentum", 1, 64, False),
        ("nesterov", 4, 16, False),
        ("adamw", 1, 16, True),
        ("momentum", 2, 32, True),
    ],
)
def test_taking_micro_batches_ahead_changes_nothing(optimizer, replicas, b, by_xla):
    """Two to 40 micro-batches in an update, and batches that grow: bit for bit the same."""
    of = functools.partial(trained, optimizer, replicas, b, by_xla=by_xla)
    found = [[*each.records.values(), *with_slots(each.step)] for each in (of(), of(ahead=True))]
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_an_average_and_regularizers_are_the_same_with_xla(cpus):
    def model():
        return reshaped(regularizer=keras.regularizers.L2(0.1))

    found = []
    for by_xla, replicas in ((False, 1), (True, 2)):
        strategy = strategy_of(cpus, replicas)
        step = averaging_step(strategy, model, decay=0.9, base_batch_size=64, by_xla=by_xla)
        run(step, 32)
        assert uses_xla(step) == by_xla
        found.append([*weights(step), *(variable.numpy() for variable in step.average.variables)])
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


# Operations that start no kernel on a device.
_FREE = {
    *("Const", "Identity", "IdentityN", "NoOp", "Placeholder", "_Arg", "_Retval", "Reshape"),
    *("ReadVariableOp", "AssignVariableOp", "VarIsInitializedOp", "StopGradient", "Shape"),
}


def kernels(step):
    """The operations of an update's graph that start a kernel, without what is inside XLA's."""
    (stretch,) = step._stretches.values()
    graph = stretch.get_concrete_function().graph.as_graph_def()
    compiled = {f.signature.name for f in graph.library.function if f.attr["_XlaMustCompile"].b}
    inner = [f for f in graph.library.function if f.signature.name not in compiled]
    called = {n.attr["f"].func.name for f in inner for n in f.node_def if "f" in n.attr}
    inner = [f for f in inner if f.signature.name in called or "while" in f.signature.name]
    return [n.op for f in inner for n in f.node_def if n.op not in _FREE]


def test_an_update_is_tens_of_kernels_and_not_hundreds():
    assert len(kernels(trained("adamw", 1, 16, by_xla=True).step)) < 60
    assert len(kernels(trained("adamw", 1, 64, by_xla=False).step)) > 200


def test_lanes_are_the_same_with_xla(cpus):
    step = step_on(strategy_of(cpus, 1), reshaped, by_xla=True, lanes=2, clip_norm=0.5)
    found = run(step, 32)["loss"]
    assert uses_xla(step)
    wanted = trained("momentum", 1, 64, by_xla=False).records["loss"]
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_masks_are_functions_of_the_position_with_xla_too(cpus):
    """XLA has another generator, so random layers draw other masks with it, and again the same.

    With XLA, two lanes share a micro-batch.
    """
    found = {}
    for name, by_xla, lanes in (("plain", False, 1), ("first", True, 2), ("second", True, 2)):
        model = functools.partial(reshaped, dropout=0.5)
        step = step_on(strategy_of(cpus, 1), model, by_xla=by_xla, lanes=lanes)
        found[name] = run(step, 32)["loss"]
        assert uses_xla(step) == by_xla
    np.testing.assert_allclose(found["second"], found["first"], atol=1e-5)
    assert not np.allclose(found["plain"], found["first"], atol=1e-4)


class Wrong(keras.layers.Layer):
    def call(self, inputs, training=False):
        if training:
            raise KeyError("only in training")
        return inputs


def test_an_error_of_the_users_code_is_theirs_with_xla_too(cpus):
    def model():
        inputs = keras.Input((6, 6, 1), dtype="uint8")
        return keras.Model(inputs, reshaped()(Wrong()(inputs)))

    step = step_on(strategy_of(cpus, 1), model, by_xla=True)
    with pytest.raises(UserError, match="only in training"):
        run(step, 32)


def test_all_processes_do_without_xla_if_one_cannot(cpus, logged):
    step = step_on(strategy_of(cpus, 1), dense, by_xla=True, agree=lambda _: True)
    run(step, 32, [(64, 0.1, 0.9)])
    assert not uses_xla(step)
    assert logged == ["another process cannot compile this model by XLA, so no process uses XLA"]


def test_a_model_that_xla_cannot_compile_trains_without_it(cpus, logged):
    plain = step_on(strategy_of(cpus, 1), without_xla)
    tried = step_on(strategy_of(cpus, 1), without_xla, by_xla=True)
    wanted, found = run(plain, 32), run(tried, 32)
    np.testing.assert_allclose(found["loss"], wanted["loss"], atol=1e-5)
    assert not uses_xla(tried)
    (line,) = [each for each in logged if "XLA" in each]
    what = "XLA cannot compile this model for micro-batches of 32 examples, "
    assert line.startswith(f"{what}so they are computed without XLA: ")
    assert "AsString" in line


@pytest.mark.parametrize(
    ("flag", "deterministic", "expected"),
    [("auto", False, False), ("on", False, True), ("on", True, True), ("off", False, False)],
)
def test_xla_is_not_chosen_for_a_cpu(cpus, flag, deterministic, expected):
    strategy = strategy_of(cpus, 2)
    assert compiles_by_xla(strategy, flag, deterministic=deterministic) == expected


def test_a_run_goes_on_exactly_with_xla_as_a_kill_left_it(tmp_path):
    """The run resumes within an epoch, and then the batch grows twice."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    flags = [*SHORT, "--xla=on", "--eval_every_epochs=0.6"]
    train(whole, *flags, "--keep_checkpoints=9")
    train(as_of(whole, killed, 75), *flags)
    assert digest(killed) == digest(whole)
