import os
import shutil

import pytest
import tensorflow as tf

from trainer.errors import UserError
from trainer.run_dir import checkpoint_reader
from trainer.run_dir.checkpoints import Checkpoints


@pytest.fixture
def variable():
    return tf.Variable([0.0])


@pytest.fixture
def folder(tmp_path, variable):
    """Writes checkpoints of updates 9, 10, 99, 100 and again 100; update 10 is the best."""
    checkpoints = Checkpoints(tmp_path, {"weights": [variable], "slots": [tf.Variable(7)]}, keep=9)
    for value, update in enumerate([9, 10, 99, 100, 100]):
        variable.assign([value])
        best = {"update": min(update, 10), "top1": 0.5}
        checkpoints.save(update, {"value": value, "best": best})
        checkpoints.wait()
    variable.assign([-1.0])
    return tmp_path


def load(folder, which, variable):
    path, progress = checkpoint_reader.load(folder, which, {"weights": [variable]})
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
def test_the_named_checkpoint_is_read(folder, variable, which, name):
    assert load(folder, which.format(folder=folder), variable) == name


@pytest.mark.parametrize("which", ["11", "bset", "", "²", "000000011", "{folder}/000000011", "-1"])
def test_a_checkpoint_that_does_not_exist_is_rejected(folder, variable, which):
    which = which.format(folder=folder)
    with pytest.raises(
        UserError, match=r"does not exist: checkpoints of updates 9, 10, 99, 100 exist"
    ) as error:
        load(folder, which, variable)
    assert f"--checkpoint={which} does" in str(error.value)


@pytest.mark.parametrize("which", ["newest", "best", "9"])
def test_a_run_without_checkpoints_is_rejected(tmp_path, variable, which):
    with pytest.raises(UserError, match="holds no checkpoint: wait for"):
        load(tmp_path / "checkpoints", which, variable)


def test_best_is_rejected_before_an_evaluation(tmp_path, variable):
    checkpoints = Checkpoints(tmp_path, {"weights": [variable]}, keep=9)
    checkpoints.save(1, {"best": None})
    checkpoints.wait()
    with pytest.raises(
        UserError, match="--checkpoint=best does not exist: checkpoints of updates 1 exist"
    ):
        load(tmp_path, "best", variable)


def damage(path):
    (data,) = path.glob("checkpoint.data-*")
    content = bytearray(data.read_bytes())
    content[0] ^= 1  # A bit of the weights.
    data.write_bytes(content)


def test_newest_skips_and_reports_damaged_checkpoints(folder, variable, logged):
    damage(folder / "000000100.1")
    (folder / "000000099" / "checkpoint.index").unlink()
    assert load(folder, "newest", variable) == "000000010"
    assert [report.split(":")[0] for report in logged] == [
        f"checkpoint {folder}/000000100.1 is damaged and left out",
        f"checkpoint {folder}/000000099 is damaged and left out",
    ]
    assert sorted(os.listdir(folder))[-1] == "000000100.1"  # Damaged checkpoints keep their names.


@pytest.mark.parametrize("which", ["10", "best", "{folder}/000000010"])
def test_a_named_damaged_checkpoint_is_rejected(folder, variable, which):
    damage(folder / "000000010")
    with pytest.raises(UserError, match=r"000000010 is damaged: .*\n.*updates 9, 99, 100 exist"):
        load(folder, which.format(folder=folder), variable)


def test_a_run_with_only_damaged_checkpoints_is_rejected(folder, variable):
    for path in folder.iterdir():
        damage(path)
    with pytest.raises(UserError, match=r"000000100.1 is damaged: .*\nRestore it from a copy"):
        load(folder, "newest", variable)


@pytest.mark.parametrize(
    ("which", "deleted", "expected"),
    [("newest", "000000100.1", "000000101"), ("best", "000000010", "000000099")],
)
def test_a_checkpoint_deleted_meanwhile_is_replaced(
    folder, variable, which, deleted, expected, monkeypatch
):
    """The run trains meanwhile, deletes the checkpoint and writes another one."""
    read = checkpoint_reader.read

    def read_too_late(path, variables):
        if path.name == deleted and variables:
            shutil.rmtree(path)
            other = tf.Variable([5.0])
            trained = Checkpoints(folder, {"weights": [other]}, keep=9)
            trained.save(101, {"value": 5, "best": {"update": 99, "top1": 0.5}})
            trained.wait()
        return read(path, variables)

    monkeypatch.setattr(checkpoint_reader, "read", read_too_late)
    assert load(folder, which, variable) == expected
    assert not (folder / deleted).exists()
