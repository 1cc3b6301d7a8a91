import os
import signal
import subprocess
import sys
import time

import pytest

from trainer.run_dir import temporary_folder

HOLD = """
import pathlib, sys
from trainer.run_dir import temporary_folder
with temporary_folder.beside(pathlib.Path(sys.argv[1])) as work:
    (work / sys.argv[2]).mkdir()
    (work / sys.argv[2] / "x").touch()
    print(work, flush=True)
    sys.stdin.read()
"""


def holder(path, inside):
    """Starts a process that holds a folder beside `path`; returns both."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), inside],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    return process, process.stdout.readline().strip()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_folder_is_removed_on_exit(tmp_path):
    with temporary_folder.beside(tmp_path / "export") as work:
        assert work.parent == tmp_path
    with pytest.raises(ValueError, match="x"), temporary_folder.beside(tmp_path / "export"):
        raise ValueError("x")
    assert names(tmp_path) == []


def test_only_folders_of_killed_processes_are_removed(tmp_path):
    (tmp_path / ".export-notes").mkdir()
    (tmp_path / ".export-notes12").mkdir()
    (tmp_path / ".export-notes12" / "of_a_user").touch()
    killed, left = holder(tmp_path / "export", "new")
    living, used = holder(tmp_path / "export", "new")
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    with temporary_folder.beside(tmp_path / "export"):
        assert not os.path.exists(left)
        assert os.path.exists(used)
    living.communicate()
    assert names(tmp_path) == [".export-notes", ".export-notes12"]


def test_an_empty_folder_is_removed_once_it_is_old(tmp_path):
    empty = tmp_path / ".export-abcd1234"
    empty.mkdir()
    with temporary_folder.beside(tmp_path / "export"):
        assert empty.exists()
    os.utime(empty, times=(time.time() - 120,) * 2)
    with temporary_folder.beside(tmp_path / "export"):
        assert not empty.exists()


def test_a_kill_between_two_renames_restores_the_previous_content(tmp_path):
    killed, left = holder(tmp_path / "export", "old")
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    with temporary_folder.beside(tmp_path / "export"):
        assert names(tmp_path / "export") == ["x"]
        assert not os.path.exists(left)
