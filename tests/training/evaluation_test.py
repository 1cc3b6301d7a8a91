import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.distributed.process_group_test import on_all
from tests.support.models import huge
from trainer.data.in_memory import InMemoryDataset
from trainer.distributed.strategy import mirrored
from trainer.errors import UserError
from trainer.nn.losses import Loss
from trainer.training.evaluation import Evaluator

RNG = np.random.default_rng(0)


def never():
    return False


# Less than a batch, a batch less or more one (of 125 a lane), full batches, and an incomplete last.
@pytest.mark.parametrize(
    ("replicas", "lanes", "examples"),
    [
        *((1, 1, 1), (1, 1, 1500), (1, 1, 1777), (1, 2, 249), (1, 2, 251), (1, 2, 1500)),
        *((2, 3, 1), (2, 3, 1500), (2, 3, 1777), (4, 1, 1), (4, 1, 249), (4, 1, 251), (4, 1, 1777)),
    ],
)
def test_every_example_counts_once(cpus, replicas, lanes, examples):
    pixels = RNG.integers(0, 256, (examples, 3, 3, 1), np.uint8)
    labels = RNG.integers(0, 7, examples)
    images = InMemoryDataset(
        images=pixels, labels=labels, class_names=tuple("abcdefg"), name="random"
    )
    strategy = mirrored(cpus[:replicas])
    with strategy.scope():
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [
                keras.Input((3, 3, 1), dtype="uint8"),
                keras.layers.Rescaling(1 / 99),
                keras.layers.Flatten(),
                keras.layers.Dense(7),
            ]
        )
    evaluator = Evaluator(strategy, model, images, lanes)
    assert evaluator.predictions() is None
    found = evaluator.evaluate(never)
    logits = model(pixels).numpy().astype(np.float64)
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    rank = (logits > logits[np.arange(examples), labels][:, None]).sum(axis=1)
    assert found.loss == pytest.approx(-log_p[np.arange(examples), labels].mean(), rel=1e-5)
    assert found.top1 == pytest.approx((rank < 1).mean())
    assert found.top5 == pytest.approx((rank < 5).mean())
    predictions = evaluator.predictions()
    np.testing.assert_array_equal(predictions.indices, np.arange(examples))
    np.testing.assert_array_equal(predictions.labels, labels)
    np.testing.assert_array_equal(predictions.predicted, logits.argmax(axis=1))
    confidences = np.exp(log_p.max(axis=1))
    np.testing.assert_allclose(predictions.confidences, confidences, rtol=1e-4)
    losses = -log_p[np.arange(examples), labels]
    np.testing.assert_allclose(predictions.losses, losses, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(predictions.probabilities, np.exp(-losses), rtol=1e-4)
    assert found.loss == pytest.approx(predictions.losses.mean(), rel=1e-5)


@pytest.mark.parametrize("mean", [False, True])
def test_a_sigmoid_loss_has_its_own_probabilities(cpus, mean):
    count = 130
    pixels, labels = RNG.integers(0, 256, (count, 2, 2, 1), np.uint8), RNG.integers(0, 4, count)
    images = InMemoryDataset(images=pixels, labels=labels, class_names=tuple("abcd"), name="r")
    model = keras.Sequential(
        [
            keras.Input((2, 2, 1), dtype="uint8"),
            keras.layers.Rescaling(1 / 64, -2),
            keras.layers.Flatten(),
            keras.layers.Dense(4),
        ]
    )
    strategy, loss = tf.distribute.OneDeviceStrategy(cpus[0]), Loss("sigmoid", mean)
    evaluator = Evaluator(strategy, model, images, loss=loss)
    found, predictions = evaluator.evaluate(never), evaluator.predictions()
    p = 1 / (1 + np.exp(-model(pixels).numpy().astype(np.float64)))
    targets = np.eye(4)[labels]
    losses = -(targets * np.log(p) + (1 - targets) * np.log(1 - p)).sum(axis=1) / (4 if mean else 1)
    assert found.loss == pytest.approx(losses.mean(), rel=1e-5)
    assert found.top1 == pytest.approx((p.argmax(axis=1) == labels).mean())
    np.testing.assert_allclose(predictions.losses, losses, rtol=1e-4)
    np.testing.assert_allclose(predictions.confidences, p.max(axis=1), rtol=1e-5)
    np.testing.assert_allclose(predictions.probabilities, p[targets == 1], rtol=1e-4)


def test_a_stopped_evaluation_has_no_predictions(cpus):
    images = InMemoryDataset(
        images=np.zeros((9, 2, 2, 1), np.uint8),
        labels=np.full(9, 1),
        class_names=("a", "b"),
        name="zeros",
    )
    model = keras.Sequential(
        [keras.Input((2, 2, 1), dtype="uint8"), keras.layers.Flatten(), keras.layers.Dense(2)]
    )
    evaluator = Evaluator(tf.distribute.OneDeviceStrategy(cpus[0]), model, images)
    evaluator.evaluate(never)
    assert len(evaluator.predictions().labels) == 9
    assert evaluator.evaluate(lambda: True) is None
    assert evaluator.predictions() is None


class OfTwoHosts:
    """A strategy that has another replica elsewhere."""

    num_replicas_in_sync = 2

    def __init__(self, local):
        self.local = local

    def __getattr__(self, name):
        return getattr(self.local, name)


def test_hosts_of_few_and_of_many_cores_share_the_examples(cpus):
    labels = RNG.integers(0, 7, 1777)
    pixels = np.repeat(labels, 4).reshape(-1, 2, 2, 1).astype(np.uint8)
    images = InMemoryDataset(
        images=pixels, labels=labels % 2, class_names=("a", "b"), name="random"
    )
    model = keras.Sequential(
        [keras.Input((2, 2, 1), dtype="uint8"), keras.layers.Flatten(), keras.layers.Dense(2)]
    )
    strategy = tf.distribute.OneDeviceStrategy(cpus[0])
    one = Evaluator(strategy, model, images)
    alone, answers = one.evaluate(never), one.predictions()

    def evaluated(hosts):
        lanes = (2, 3)[hosts.index]
        evaluator = Evaluator(OfTwoHosts(strategy), model, images, lanes, group=hosts)
        return evaluator.evaluate(never), evaluator.predictions()

    for found, predictions in on_all(2, evaluated):
        assert dataclasses.astuple(found) == pytest.approx(dataclasses.astuple(alone), rel=1e-5)
        for field in dataclasses.fields(predictions):
            values = (getattr(each, field.name) for each in (predictions, answers))
            np.testing.assert_allclose(*values, rtol=1e-6, err_msg=field.name)


def test_a_model_that_says_nothing_is_right_by_chance(cpus):
    images = InMemoryDataset(
        images=np.zeros((100, 2, 2, 1), np.uint8),
        labels=np.arange(100) % 10,
        class_names=tuple("0123456789"),
        name="z",
    )
    model = keras.Sequential(
        [
            keras.Input((2, 2, 1), dtype="uint8"),
            keras.layers.Flatten(),
            keras.layers.Dense(10, kernel_initializer="zeros"),
        ]
    )
    found = Evaluator(tf.distribute.OneDeviceStrategy(cpus[0]), model, images).evaluate(never)
    assert found.top1 == pytest.approx(0.1)
    assert found.top5 == pytest.approx(0.5)


def test_a_second_call_sees_the_model_as_it_is(cpus):
    images = InMemoryDataset(
        images=np.zeros((9, 2, 2, 1), np.uint8),
        labels=np.full(9, 1),
        class_names=("a", "b"),
        name="zeros",
    )
    strategy = tf.distribute.OneDeviceStrategy(cpus[0])
    with strategy.scope():
        model = keras.Sequential(
            [keras.Input((2, 2, 1), dtype="uint8"), keras.layers.Flatten(), keras.layers.Dense(2)]
        )
    evaluate = Evaluator(strategy, model, images).evaluate
    model.layers[-1].bias.assign([1.0, 0.0])
    assert evaluate(never).top1 == 0
    model.layers[-1].bias.assign([0.0, 1.0])
    assert evaluate(never).top1 == 1


def test_an_evaluation_that_does_not_fit(cpus):
    images = InMemoryDataset(
        images=np.zeros((9, 6, 6, 1), np.uint8),
        labels=np.full(9, 1),
        class_names=("a", "b"),
        name="zeros",
    )
    model = huge((6, 6, 1), 2)
    with pytest.raises(UserError) as error:
        Evaluator(tf.distribute.OneDeviceStrategy(cpus[0]), model, images).evaluate(never)
    line, remedy = str(error.value).splitlines()
    assert line == "an evaluation of 125 images at a time does not fit in memory."
    assert remedy.startswith("Use a smaller --image_size or --eval_image_size, or --precision")
    assert remedy.endswith("; a run must begin anew with them.")
