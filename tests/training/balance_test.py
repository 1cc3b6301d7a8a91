"""Weighted updates equal a slow reference in any layout; a run keeps its weights and its order."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf

from tests.support import runs
from tests.support.configs import done, parsed
from tests.support.steps import (
    IMAGES,
    LABELS,
    UPDATES,
    dense,
    run,
    step_on,
    strategy_of,
    tiny,
    weights,
)
from trainer.data.bad_examples import BadExamples
from trainer.data.in_memory import InMemoryDataset
from trainer.data.indexed import IndexedDataset
from trainer.distributed.process_group import ProcessGroup
from trainer.errors import UserError
from trainer.main import main
from trainer.run_dir import training_data
from trainer.training import balance

WEIGHTS = (0.25, 1.0, 4.0)


def test_a_weighted_update_is_the_sum_of_weighted_gradients_over_the_batch(cpus):
    """Ghost batches are computed one by one, and examples weighted one by one, in numpy."""
    step = step_on(
        *(strategy_of(cpus, 1), lambda: tiny(ghost=16)),
        optimizer="sgd",
        weight_decay=0.0,
        label_smoothing=0.0,
        class_weights=WEIGHTS,
    )
    model, batch, rate = tiny(ghost=16), 64, 0.3
    parameters = [variable.value for variable in model.trainable_variables]
    sums, loss_sum, correct = [np.zeros(v.shape) for v in parameters], 0.0, 0
    for start in range(0, batch, 16):
        images, labels = IMAGES[start : start + 16], LABELS[start : start + 16]
        with tf.GradientTape(persistent=True) as tape:
            log_p = tf.nn.log_softmax(model(images, training=True))
            losses = [-log_p[i, int(label)] for i, label in enumerate(labels)]
        for loss, label in zip(losses, labels, strict=True):
            loss_sum += WEIGHTS[label] * float(loss)
            gradients = tape.gradient(loss, parameters)
            sums = [s + WEIGHTS[label] * g.numpy() for s, g in zip(sums, gradients, strict=True)]
        correct += int(np.sum(np.argmax(log_p, 1) == labels))
    found = run(step, 32, [(batch, rate, 0.0)])
    for ours, old, total in zip(*(step.model.trainable_variables, parameters, sums), strict=True):
        np.testing.assert_allclose(ours.numpy(), old.numpy() - rate * total / batch, atol=1e-6)
    np.testing.assert_allclose(found["loss"], [loss_sum / batch], rtol=1e-5)
    np.testing.assert_allclose(found["top1"], [correct / batch], rtol=1e-6)


def test_no_layout_changes_a_weighted_update(cpus):
    found = []
    for replicas, b, lanes in ((1, 64, 1), (1, 32, 2), (4, 16, 1)):
        step = step_on(strategy_of(cpus, replicas), lanes=lanes, class_weights=WEIGHTS)
        found.append([run(step, b, UPDATES)["loss"], *weights(step)])
    for other in found[1:]:
        for ours, theirs in zip(other, found[0], strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_equal_weights_are_without_effect(cpus):
    found = []
    for class_weights in (None, (1.0, 1.0, 1.0)):
        step = step_on(strategy_of(cpus, 1), dense, class_weights=class_weights)
        found.append([run(step, 32, UPDATES[:3])["loss"], *weights(step)])
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


NAMES = ("a", "b", "c")
SOURCE = InMemoryDataset(np.zeros((8, 2, 2, 1), np.uint8), np.array([0] * 5 + [2, 1, 1]), NAMES, "")


DATA = training_data.TrainingData(8, (2, 2, 1), 3, (0.0,), (1.0,), NAMES)


def of(config, data=DATA, source=SOURCE, skip=False):
    return balance.from_config(config, source, data, BadExamples(skip), ProcessGroup())


def test_the_weights_follow_the_labels():
    config = parsed("--class_weights=balanced")
    found = of(config)
    assert found.weights == pytest.approx([8 / (3 * n) for n in (5, 2, 1)])
    assert found.order is None
    assert of(parsed()) == balance.Balance()


def test_a_run_refuses_other_weights_than_it_began_with(tmp_path):
    file = tmp_path / "w.json"
    config = parsed(f"--class_weights={file}")
    file.write_text(json.dumps({"a": 1, "b": 2, "c": 3}))
    own = of(config).weights
    data = dataclasses.replace(DATA, class_weights=own)
    training_data.keep(tmp_path, data)
    assert training_data.read(tmp_path) == data
    assert of(config, data).weights == own
    file.write_text(json.dumps({"a": 2, "b": 4, "c": 6}))  # The scale does not matter.
    assert of(config, data).weights == own
    file.write_text(json.dumps({"a": 1, "b": 2, "c": 4}))
    with pytest.raises(UserError, match=r"differ from those that this run began with, for a, b, c"):
        of(config, data)


def test_a_run_refuses_other_class_sizes_than_it_began_with(tmp_path):
    config = parsed("--sampling=balanced")
    assert of(config).sizes == (5, 2, 1)
    data = dataclasses.replace(DATA, class_sizes=(5, 2, 1))
    training_data.keep(tmp_path, data)
    assert training_data.read(tmp_path) == data
    assert of(config, data).sizes == (5, 2, 1)
    with pytest.raises(UserError, match=r"class sizes, which differ .* for a, c\.\n"):
        of(config, dataclasses.replace(DATA, class_sizes=(4, 2, 2)))


def test_examples_without_labels_are_refused_or_counted():
    labels = np.array([0] * 5 + [2, 1, -1])
    source = IndexedDataset(
        examples=8,
        class_names=NAMES,
        image_shape=(2, 2, 1),
        name="records",
        fetch=lambda indices: (indices,),
        open=lambda index: index,
        describe=lambda index: f"record {index}",
        labels=lambda: labels,
    )
    config = parsed("--class_weights=balanced")
    with pytest.raises(UserError, match="record 7 cannot be used: its label"):
        of(config, source=source)
    assert of(config, source=source, skip=True).weights is not None


FLAGS = [
    *runs.SHORT,
    "--train_split=train[:800]",
    "--eval_split=test[:300]",
    "--epochs=1",
    "--anneal_epochs=50%",
    "--max_batch_size=160",
    "--model=tests.support.models:reshaping",
    "--base_learning_rate=0.01",
]
CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker")


def trained(capsys, path, *flags):
    """Trains to the end or to --stop_at_epoch, and returns what the run says."""
    status, out, error = done(capsys, "train", f"--model_dir={path}", *FLAGS, *flags)
    assert status == 0, error
    return out


@pytest.fixture(scope="module")
def plain_loss(tmp_path_factory, fashion_mnist):
    """The loss of a run without balance."""
    path = tmp_path_factory.mktemp("balance") / "plain"
    arguments = [f"--model_dir={path}", *FLAGS]
    assert main(["crescendo", "train", *arguments, "--precision=float32", "--nodeterministic"]) == 0
    return runs.result(path)["loss"]


@pytest.mark.parametrize("kind", ["sampling", "class_weights"])
def test_a_run_that_resumes_on_other_replicas_learns_the_same(tmp_path, capsys, plain_loss, kind):
    """The batch grows from 32 to 160; a linear model keeps rounding small."""
    file, whole, parts = (tmp_path / name for name in ("w.json", "whole", "parts"))
    file.write_text(json.dumps(dict.fromkeys(CLASSES, 1) | {"Bag": 3, "Ankle boot": 0.2}))
    flag = f"--{kind}={'balanced' if kind == 'sampling' else file}"
    for path, *more in (
        (whole,),
        (parts, "--micro_batch_size=16", "--stop_at_epoch=0.3"),
        (parts, "--micro_batch_size=8", "--virtual_devices=4"),
    ):
        assert f"{flag}: " in trained(capsys, path, flag, *more)
    loss = runs.result(whole)["loss"]
    assert abs(plain_loss - loss) > 1e-3
    kept = training_data.read(whole)
    assert (kept.class_weights is None) == (kind == "sampling") == (kept.class_sizes is not None)
    assert runs.result(parts)["loss"] == pytest.approx(loss, abs=1e-4)
    status, _, error = done(capsys, "train", f"--model_dir={parts}", *FLAGS)
    assert (status, f"--{kind}: " in error) == (2, True)
