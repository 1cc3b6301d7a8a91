"""Files beside checkpoints: other names, and other files under the name of a checkpoint."""

import os
import pathlib

import pytest

from tests.support.small_checkpoints import opened, save
from trainer.errors import UserError

STRANGE = ["ckpt-7", "7", "2024", "²", "1.2.3", "5.", "..5", "000000009~", "000000009.bak", ".swp"]


def test_files_with_other_names_are_left_alone(tmp_path, variables, logged):
    save(opened(tmp_path, variables), 1)
    for name in STRANGE:
        (tmp_path / name).mkdir()
    (tmp_path / "checkpoint").touch()
    checkpoints = opened(tmp_path, variables)
    assert checkpoints.restore() == {"update": 1}
    for update in (2, 3, 4):
        save(checkpoints, update)
    assert checkpoints.wait() == 4
    assert logged == []
    assert opened(tmp_path, variables).restore() == {"update": 4}
    left = {path.name for path in tmp_path.iterdir()}
    assert left >= {*STRANGE, "checkpoint", "000000004"}


@pytest.mark.parametrize(
    "make",
    [os.mkfifo, pathlib.Path.touch, pathlib.Path.mkdir],
    ids=["a FIFO", "a file", "a folder"],
)
def test_a_file_with_the_name_of_a_checkpoint_is_damaged(tmp_path, variables, make, logged):
    save(opened(tmp_path, variables), 1)
    make(tmp_path / "000000002")
    checkpoints = opened(tmp_path, variables)
    assert checkpoints.restore() == {"update": 1}
    assert f"checkpoint {tmp_path}/000000002 is damaged and left out: {tmp_path}" in logged[0] or (
        "Failed to find any matching files" in logged[0]
    )
    assert (tmp_path / "damaged-000000002").exists()
    save(checkpoints, 2)
    assert opened(tmp_path, variables).restore() == {"update": 2}


def test_a_file_named_incomplete_is_renamed(tmp_path, variables, logged):
    (tmp_path / "incomplete").write_text("mine")
    checkpoints = opened(tmp_path, variables)
    save(checkpoints, 1)
    assert checkpoints.wait() == 1
    assert logged == [f"{tmp_path}/incomplete is not a folder; renamed it to damaged-incomplete"]
    assert (tmp_path / "damaged-incomplete").read_text() == "mine"


def test_a_file_in_place_of_the_folder_is_an_error(tmp_path, variables):
    (tmp_path / "checkpoints").touch()
    with pytest.raises(UserError, match=r"checkpoints cannot be read: Not a directory\.\nRestore"):
        opened(tmp_path / "checkpoints", variables).restore()
