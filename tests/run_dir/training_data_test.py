import dataclasses
import json
import os
import re

import pytest

from trainer.errors import UserError
from trainer.run_dir import training_data
from trainer.run_dir.training_data import FILE, TrainingData

DATA = TrainingData(
    60_000, (28, 28, 3), 2, (72.91172790527344, 0.1, 1e-7), (1.0, 90.5, 3.0), ("cat", "\udcff\n")
)


@pytest.mark.parametrize("data", [DATA, dataclasses.replace(DATA, class_names=None)])
def test_round_trip(tmp_path, data):
    assert training_data.read(tmp_path) is None
    training_data.keep(tmp_path, data)
    assert training_data.read(tmp_path) == data


def test_a_file_without_class_names_is_read(tmp_path):
    kept = DATA.as_json()
    del kept["class_names"]
    (tmp_path / FILE).write_text(json.dumps(kept))
    assert training_data.read(tmp_path) == dataclasses.replace(DATA, class_names=None)


def test_a_fifo_is_rejected_at_once(tmp_path):
    os.mkfifo(tmp_path / FILE)
    with pytest.raises(UserError, match="cannot be read: it is a FIFO, not a regular file"):
        training_data.read(tmp_path)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "3", "\0", "{}", '{"examples": 1}', "[" * 10**5, "\udcff"]
)
def test_a_file_without_values_is_damaged(tmp_path, content):
    (tmp_path / FILE).write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match=f"{FILE} is damaged: .*\nRestore it from a copy"):
        training_data.read(tmp_path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("examples", 0),
        ("examples", 1.5),
        ("examples", True),
        ("image_shape", [28, 28]),
        ("image_shape", [28, 0, 3]),
        ("classes", "2"),
        ("mean", [12.9]),
        ("mean", [float("nan"), 0, 0]),
        ("mean", [-1, 0, 0]),
        ("std", [0, 1, 1]),
        ("std", [float("inf"), 1, 1]),
        ("std", [10**400, 1, 1]),
        ("std", None),
        ("std", [1, 1, 1, 1]),
        ("class_names", ["cat"]),
        ("class_names", ["cat", "cat"]),
        ("class_names", ["cat", 2]),
    ],
)
def test_an_impossible_value_is_named(tmp_path, field, value):
    (tmp_path / FILE).write_text(json.dumps(DATA.as_json() | {field: value}))
    with pytest.raises(UserError, match=rf"{FILE} is damaged: {field}(\[\d\])? "):
        training_data.read(tmp_path)


def test_values_that_differ_from_those_of_the_checkpoint_are_named(tmp_path):
    file = tmp_path / FILE
    training_data.check_learned({}, DATA, file)  # A checkpoint by an older version.
    training_data.check_learned(DATA.as_json(), DATA, file)
    changed = dataclasses.replace(DATA, mean=(12.9, 0.1, 1e-7))
    message = f"{FILE} differs .*: mean [12.9, 0.1, 1e-07] instead of [72.91172790527344, 0.1"
    with pytest.raises(UserError, match=re.escape(message).replace("\\.\\*", ".*")):
        training_data.check_learned(DATA.as_json(), changed, file)


def test_the_message_on_many_differing_names_is_short(tmp_path):
    many = dataclasses.replace(DATA, classes=20_000, class_names=(*map(str, range(20_000)),))
    other = dataclasses.replace(many, class_names=(*map(str, range(1, 20_001)),))
    with pytest.raises(UserError, match="class_names") as error:
        training_data.check_learned(other.as_json(), many, tmp_path / FILE)
    assert len(str(error.value)) < 1000
