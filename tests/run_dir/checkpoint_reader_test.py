import os
import shutil

import pytest
import tensorflow as tf

from trainer.errors import UserError
from trainer.run_dir import checkpoint_reader
from trainer.run_dir.checkpoints import Checkpoints


def nothing(text):
    pytest.fail(text)


@pytest.fixture
def variable():
    return tf.Variable([0.0])


@pytest.fixture
def folder(tmp_path, variable):
    """Checkpoints of updates 9, 10, 99 and, written again, 100; that of 10 is the best."""
    checkpoints = Checkpoints(
        tmp_path, {"weights": [variable], "slots": [tf.Variable(7)]}, keep=9, report=nothing
    )
    for value, update in enumerate([9, 10, 99, 100, 100]):
        variable.assign([value])
        best = {"update": min(update, 10), "top1": 0.5}
        checkpoints.save(update, {"value": value, "best": best})
        checkpoints.wait()
    variable.assign([-1.0])
    return tmp_path


def load(folder, which, variable, report=nothing):
    path, progress = checkpoint_reader.load(folder, which, {"weights": [variable]}, report)
    assert variable.numpy() == progress["value"]
    return path.name


@pytest.mark.parametrize(
    ("which", "name"),
    [
        ("newest", "000000100.1"),
        ("best", "000000010"),
        ("9", "000000009"),
        ("000000009", "000000009"),
        ("100", "000000100.1"),
        ("{folder}/000000099", "000000099"),
        ("{folder}/000000099/", "000000099"),
    ],
)
def test_what_is_named_is_read(folder, variable, which, name):
    assert load(folder, which.format(folder=folder), variable) == name


@pytest.mark.parametrize("which", ["11", "bset", "", "²", "000000011", "{folder}/000000011", "-1"])
def test_what_is_none(folder, variable, which):
    which = which.format(folder=folder)
    with pytest.raises(
        UserError, match=r"is none: those of updates 9, 10, 99, 100 are there"
    ) as error:
        load(folder, which, variable)
    assert f"--checkpoint={which} is" in str(error.value)


@pytest.mark.parametrize("which", ["newest", "best", "9"])
def test_a_run_without(tmp_path, variable, which):
    with pytest.raises(UserError, match="holds no checkpoint: wait for"):
        load(tmp_path / "checkpoints", which, variable)


def test_no_best_before_an_evaluation(tmp_path, variable):
    checkpoints = Checkpoints(tmp_path, {"weights": [variable]}, keep=9, report=nothing)
    checkpoints.save(1, {"best": None})
    checkpoints.wait()
    with pytest.raises(UserError, match="--checkpoint=best is none: those of updates 1 are"):
        load(tmp_path, "best", variable)


def damage(path):
    (data,) = path.glob("checkpoint.data-*")
    content = bytearray(data.read_bytes())
    content[0] ^= 1  # of the weights
    data.write_bytes(content)


def test_before_a_damaged_newest(folder, variable):
    damage(folder / "000000100.1")
    (folder / "000000099" / "checkpoint.index").unlink()
    reports = []
    assert load(folder, "newest", variable, reports.append) == "000000010"
    assert [report.split(":")[0] for report in reports] == [
        f"checkpoint {folder}/000000100.1 is damaged and left out",
        f"checkpoint {folder}/000000099 is damaged and left out",
    ]
    assert sorted(os.listdir(folder))[-1] == "000000100.1"  # Nothing is put aside.


@pytest.mark.parametrize("which", ["10", "best", "{folder}/000000010"])
def test_one_that_is_damaged(folder, variable, which):
    damage(folder / "000000010")
    with pytest.raises(UserError, match=r"000000010 is damaged: .*\n.*updates 9, 99, 100 are"):
        load(folder, which.format(folder=folder), variable)


def test_all_damaged(folder, variable):
    for path in folder.iterdir():
        damage(path)
    with pytest.raises(UserError, match=r"000000100.1 is damaged: .*\nNo other is whole"):
        load(folder, "newest", variable)


@pytest.mark.parametrize(
    ("which", "goes", "then"),
    [("newest", "000000100.1", "000000101"), ("best", "000000010", "000000099")],
)
def test_one_that_goes_while_it_is_read(folder, variable, which, goes, then, monkeypatch):
    """As a run that trains meanwhile deletes it, for another: the choice is made again."""
    read = checkpoint_reader.read

    def read_too_late(path, variables):
        if path.name == goes and variables:
            shutil.rmtree(path)
            other = tf.Variable([5.0])
            trained = Checkpoints(folder, {"weights": [other]}, keep=9, report=nothing)
            trained.save(101, {"value": 5, "best": {"update": 99, "top1": 0.5}})
            trained.wait()
        return read(path, variables)

    monkeypatch.setattr(checkpoint_reader, "read", read_too_late)
    assert load(folder, which, variable) == then
    assert not (folder / goes).exists()
