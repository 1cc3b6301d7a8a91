"""Predictions of any number of pictures equal those of a slow reference, on replicas and lanes."""

import io
import os

import keras
import numpy as np
import pytest
from PIL import Image

from trainer.data import picture_source
from trainer.data.bad_examples import BadExamples
from trainer.distributed.strategy import mirrored
from trainer.nn.losses import Loss
from trainer.training.prediction import predict

SHAPE, CLASSES = (4, 4, 3), 7


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Returns the paths of 520 pictures, of which every 50th is damaged, and their pixels."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (520, *SHAPE), np.uint8)
    paths = []
    for number, image in enumerate(pixels):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG")
        path = folder / f"{number}.png"
        path.write_bytes(b"nothing" if number % 50 == 3 else file.getvalue())
        paths.append(os.fsencode(path))
    return paths, pixels


# Fewer pictures than lanes or replicas, one batch, and several, of which the last is not full.
@pytest.mark.parametrize(
    ("replicas", "lanes", "count"),
    [
        *((1, 1, 1), (1, 1, 251), (1, 2, 1), (1, 2, 5), (1, 2, 520)),
        *((3, 2, 2), (3, 2, 5), (3, 2, 251), (4, 1, 1), (4, 1, 251), (4, 1, 520)),
    ],
)
def test_predictions_equal_a_slow_reference(cpus, pictures, replicas, lanes, count):
    paths, pixels = pictures[0][:count], pictures[1][:count]
    strategy = mirrored(cpus[:replicas])
    with strategy.scope():
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [
                keras.Input(SHAPE, dtype="uint8"),
                keras.layers.Rescaling(1 / 99),
                keras.layers.Flatten(),
                keras.layers.Dense(CLASSES),
            ]
        )
    source = picture_source.load(paths, SHAPE, 10**6)
    bad = BadExamples(skip=True, most_reported=0)
    batches = list(predict(strategy, model, source, 3, lanes=lanes, bad=bad))
    assert batches[-1].end == count
    indices, classes, probabilities = (
        np.concatenate([getattr(each, name) for each in batches])
        for name in ("indices", "classes", "probabilities")
    )
    good = [number for number in range(count) if number % 50 != 3]
    assert indices.tolist() == good
    assert len(bad.reasons) == count - len(good)
    powers = np.exp(model(pixels).numpy().astype(np.float64))[good]
    expected = powers / powers.sum(axis=1, keepdims=True)
    order = np.argsort(-expected, axis=1)[:, :3]
    np.testing.assert_array_equal(classes, order)
    np.testing.assert_allclose(
        probabilities, np.take_along_axis(expected, order, axis=1), rtol=1e-5, atol=1e-7
    )


def test_a_sure_model_predicts_the_class_that_an_evaluation_counts(cpus, pictures):
    """Two sigmoids are 1 in float32, and the evaluation takes the largest logit."""

    def model(images, training):
        pixels = keras.ops.cast(images[:, 0, 0, :], "float32")
        return 0 * pixels + keras.ops.array([20.0, 40.0, -300.0])

    source = picture_source.load(pictures[0][:2], SHAPE, 10**6)
    options = {"bad": BadExamples(skip=True), "loss": Loss("sigmoid")}
    (found,) = predict(mirrored(cpus[:1]), model, source, 3, **options)
    assert found.classes.tolist() == [[1, 0, 2]] * 2
    np.testing.assert_array_equal(found.probabilities, [[1, 1, 0]] * 2)


def test_few_pictures_make_a_small_batch(cpus, pictures):
    sizes = []

    def model(images, training):
        sizes.append(images.shape[0])
        return keras.ops.cast(images[:, 0, 0, :], "float32")

    source = picture_source.load(pictures[0][:3], SHAPE, 10**6)
    list(predict(mirrored(cpus[:1]), model, source, 3, lanes=8, bad=BadExamples(skip=True)))
    assert set(sizes) == {1}
    assert len(sizes) == 3
