import importlib
import sys

import keras
import pytest
import tensorflow as tf

from trainer.errors import UserError
from trainer.nn.moving_statistics import update_weights
from trainer.nn.user_code import unwrap_user_errors


class Raising(keras.layers.Layer):
    def call(self, x, training=False):
        if training:
            raise KeyError("no such key")
        return x


LINE = Raising.call.__code__.co_firstlineno + 2


def network():
    return keras.Sequential([keras.Input((4,)), Raising(), keras.layers.Dense(2)])


def refused(call):
    with pytest.raises(UserError) as raised, unwrap_user_errors("--model=mine:net"):
        call()
    return raised.value


def test_an_error_in_a_layer_names_the_file_the_line_and_the_function():
    found = refused(lambda: network()(tf.zeros([3, 4]), training=True))
    assert str(found).splitlines() == [
        "--model=mine:net raised KeyError: no such key",
        f"Correct {__file__}, line {LINE}, in call.",
    ]
    assert found.above.startswith("Traceback of the model's own code:\n")
    assert 'raise KeyError("no such key")' in found.above
    assert "keras/src" not in found.above


@pytest.mark.parametrize("autograph", [True, False])
def test_an_error_in_tracing_names_the_original_line(autograph):
    model = network()
    function = tf.function(lambda x: model(x, training=True), autograph=autograph)
    found = refused(lambda: function(tf.zeros([3, 4])))
    assert f"Correct {__file__}, line {LINE}, in call." in str(found)


@pytest.mark.parametrize(
    ("source", "line", "kind"),
    [
        ("import keras\n1 / 0\n", 2, "ZeroDivisionError"),
        ("def net(:\n", 1, "SyntaxError"),
        ("\n\nimport no_such_package\n", 3, "ModuleNotFoundError"),
        ("undefined\n", 1, "NameError"),
    ],
)
def test_an_error_in_an_import_names_the_file_and_line(tmp_path, monkeypatch, source, line, kind):
    (tmp_path / "imported_here.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    found = refused(lambda: importlib.import_module("imported_here"))
    sys.modules.pop("imported_here", None)
    assert f"raised {kind}" in str(found)
    assert f"Correct {tmp_path}/imported_here.py, line {line}, in <module>." in str(found)


def test_errors_of_this_program_are_not_converted():
    with pytest.raises(AttributeError), unwrap_user_errors():
        update_weights({"0": None}, {"0": 0}, 32, [32])
    with pytest.raises(UserError, match=r"^ours$"), unwrap_user_errors():
        raise UserError("ours")


def test_a_user_error_that_autograph_wraps_is_unwrapped():
    def refuse():
        raise UserError("the remedy")

    with pytest.raises(UserError, match=r"^the remedy$"), unwrap_user_errors():
        tf.function(refuse)()


def test_a_long_message_is_shortened_to_one_line():
    def fail():
        raise ValueError("word " * 1000 + "\n\x1b[1mbold\x1b[0m")

    first, *_ = str(refused(fail)).splitlines()
    assert len(first) < 450
    assert first.endswith(" ...")
