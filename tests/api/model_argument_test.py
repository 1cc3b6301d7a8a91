"""A model as an argument: a name, a function, or a Keras model that stays as it is."""

import functools

import keras
import numpy as np
import pytest

import trainer
from tests.api.examples_test import ONE_SIZE, train
from tests.support.configs import done
from tests.support.models import Subclassed, tiny
from tests.support.squares import arrays
from trainer.api.model_argument import split

SHAPE = (12, 12, 1)


def test_a_function_of_a_module_gets_its_name():
    assert split(tiny) == ("tests.support.models:tiny", None)
    assert split("resnet_50") == ("resnet_50", None)
    assert split(None) == (None, None)


def test_other_functions_stay_in_the_process():
    def inner(image_shape, classes):
        return tiny(image_shape, classes)

    for function in (inner, lambda shape, classes: tiny(shape, classes), functools.partial(tiny)):
        assert split(function) == ("python:model", function)


def test_a_copy_of_a_keras_model_has_its_weights():
    model = tiny(SHAPE, 4)
    name, build = split(model)
    copied = build(SHAPE, 4)
    assert name == "python:model"
    assert copied is not model
    for mine, own in zip(copied.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, own)


def test_a_keras_model_without_weights_is_copied():
    _, build = split(keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(4)]))
    assert build(SHAPE, 4)(np.zeros((1, *SHAPE))).shape == (1, 4)


def test_wrong_models_are_named():
    with pytest.raises(trainer.UserError, match="model= has the type int"):
        split(3)
    with pytest.raises(trainer.UserError, match="Subclassed of layers that Keras cannot copy"):
        split(Subclassed(4))
    with pytest.raises(trainer.UserError, match=r"takes images of the shape \(12, 12, 1\)"):
        split(tiny(SHAPE, 4))[1]((8, 8, 1), 4)


def two_inputs():
    images = [keras.Input(SHAPE), keras.Input(SHAPE)]
    added = keras.layers.Flatten()(keras.layers.Add()(images))
    return keras.Model(images, keras.layers.Dense(4)(added))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            keras.Sequential([keras.Input((144,)), keras.layers.Dense(4)]),
            r"shape \(144,\), and not",
        ),
        (two_inputs(), r"shape \(12, 12, 1\) and \(12, 12, 1\), and not one input"),
        (
            keras.Sequential([keras.Input(SHAPE), keras.layers.Lambda(lambda x: 2 * x)]),
            r"cannot be copied: .*\nGive a function",
        ),
    ],
)
def test_a_model_that_cannot_be_used_as_it_is_is_refused_with_a_remedy(model, message):
    with pytest.raises(trainer.UserError, match=message):
        split(model)[1](SHAPE, 4)


def test_a_model_with_a_list_or_dict_of_one_input_is_copied():
    images = keras.Input(SHAPE, name="images")
    logits = tiny(SHAPE, 4)(images)
    for inputs in ([images], {"images": images}):
        assert split(keras.Model(inputs, logits))[1](SHAPE, 4).count_params() > 0


def test_a_run_begins_with_the_weights_of_a_keras_model_and_leaves_it_unchanged(tmp_path):
    model = tiny(SHAPE, 4)
    before = [weights.copy() for weights in model.get_weights()]
    # The learning rate is so small that the parameters stay the same in float32.
    more = {"base_learning_rate": 1e-30, "epochs": 0.2, **ONE_SIZE}
    trained = train(tmp_path / "run", model=model, **more)
    assert trained["updates"] == 4
    assert type(model.layers[1]) is keras.layers.BatchNormalization
    for mine, own in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(mine, own)
    loaded = trainer.load(tmp_path / "run", model=model)
    kernels = [w for w in loaded.get_weights() if w.shape == before[0].shape]
    np.testing.assert_array_equal(kernels[0], before[0])


@pytest.fixture(scope="module")
def on_lambda(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lambda") / "run"
    more = {"epochs": 1, **ONE_SIZE}
    return folder, train(folder, model=lambda shape, classes: tiny(shape, classes), **more)


def test_the_command_line_refuses_a_model_of_the_process_by_name(capsys, on_lambda):
    folder, _ = on_lambda
    assert "--model=python:model\n" in (folder / "flags.txt").read_text()
    status, _, error = done(capsys, "export", f"--model_dir={folder}")
    assert status == 2
    assert "only a Python program has --model=python:model" in error


def test_python_evaluates_with_the_same_model(on_lambda):
    folder, result = on_lambda
    found = trainer.evaluate(folder, model=tiny, data=arrays(64, seed=1))
    assert found["top1"] == result["top1"]
    with pytest.raises(trainer.UserError, match="only a Python program has"):
        trainer.evaluate(folder, data=arrays(64, seed=1))
