"""Keyword arguments become the words of a command line, or a message that names them."""

import pathlib

import numpy as np
import pytest

from trainer.api.arguments import words
from trainer.config import command_line
from trainer.config.flags import FLAGS, Config
from trainer.errors import UserError


def parsed(**flags):
    return command_line.parse("train", words("trainer.train", flags))


def test_values_of_each_type_arrive_unchanged():
    config = parsed(
        epochs=2,
        base_learning_rate=1 / 3,
        initial_batch_size=np.int64(256),
        momentum=np.float32(0.5),
        deterministic=True,
        anneal="step",
        anneal_epochs=["30%", 1.5],
        model_dir=pathlib.Path("runs/a b"),
    )
    assert (config.epochs, config.base_learning_rate) == (2.0, 1 / 3)
    assert (config.initial_batch_size, config.momentum) == (256, 0.5)
    assert config.deterministic
    assert config.anneal_epochs == ("30%", "1.5")
    assert config.model_dir == "runs/a b"


def test_none_leaves_a_flag_out():
    assert words("trainer.train", {"momentum": None, "epochs": 1}) == ["--epochs=1"]


def test_false_and_numpy_false_turn_a_flag_off():
    assert words("trainer.train", {"deterministic": False}) == ["--nodeterministic"]
    assert words("trainer.train", {"deterministic": np.False_}) == ["--nodeterministic"]


def test_a_recipe_comes_first_and_is_overridden():
    found = words("trainer.train", {"epochs": 1}, "fashion_mnist_grow")
    assert found == ["--flagfile=fashion_mnist_grow", "--epochs=1"]
    assert command_line.parse("train", found).epochs == 1.0


def test_a_repeated_flag_has_one_word_for_each_value():
    config = command_line.parse("predict", words("f", {"images": ["a,b.png", "c.png"]}))
    assert config.images == ("a,b.png", "c.png")


def test_each_default_of_a_flag_is_a_value_that_its_argument_takes():
    left_out = {"format", "local_dir", "runs"}
    flags = {
        name: value
        for name, value in ((name, getattr(Config, name, None)) for name in FLAGS)
        if name not in left_out and "train" in FLAGS[name].commands
    }
    assert parsed(**flags) == Config()


WRONG = [
    ({"epoch": 2}, r"trainer.train has no argument 'epoch': did you mean .*epochs"),
    ({"zzzz": 2}, "`python -m trainer train --help` lists the flags"),
    ({"flagfile": "x"}, "recipe="),
    ({"format": "json"}, "leave it out"),
    ({"epochs": "two"}, "epochs='two' has the type str: give a number"),
    ({"epochs": True}, "epochs=True has the type bool: give a number"),
    ({"seed": 1.0}, "seed=1.0 has the type float: give an integer"),
    ({"seed": True}, "seed=True has the type bool"),
    ({"deterministic": 1}, "deterministic=1 has the type int: give True or False"),
    ({"anneal_epochs": 3}, "anneal_epochs=3 has the type int: give a list"),
    ({"anneal_epochs": [{}]}, "a list of text or numbers"),
    ({"augment": ["crop", "flip"]}, r"augment=\['crop', 'flip'\] has the type list: give text"),
    ({"model_dir": "runs/\0x"}, r"has a NUL character, which no flag can have"),
    ({"images": ["a.png", "\0"]}, "has a NUL character"),
    ({"momentum": np.zeros(9999)}, r"momentum=array.* has the type ndarray: give a number"),
]


@pytest.mark.parametrize(("flags", "message"), WRONG, ids=lambda value: str(value)[:30])
def test_a_wrong_argument_is_named(flags, message):
    with pytest.raises(UserError, match=message):
        words("trainer.train", flags)


def test_a_recipe_must_be_text():
    with pytest.raises(UserError, match="recipe=3 is not the name of a recipe"):
        words("trainer.train", {}, 3)
    with pytest.raises(UserError, match="NUL"):
        words("trainer.train", {}, "\0")


def test_the_command_line_checks_the_values():
    with pytest.raises(UserError, match=r"flag --epochs=0\.0: must be above 0"):
        parsed(epochs=0)
