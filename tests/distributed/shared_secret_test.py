"""Finds a run's secret in the environment or a file, and refuses unsafe ones."""

import os
import stat
import subprocess

import pytest

from trainer.distributed.shared_secret import FILE, VARIABLE, find
from trainer.distributed.worker import Worker
from trainer.errors import UserError

FAR = Worker(("a:1", "b:1"), 1)
NEAR = Worker(("localhost:1", "127.0.0.2:1", "[::1]:1"), 1)


@pytest.fixture(autouse=True)
def none_given(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)


def refused(worker, folder):
    with pytest.raises(UserError) as error:
        find(worker, folder)
    what, remedy = str(error.value).splitlines()
    return what, remedy


def test_the_environments_secret_precedes_the_files(monkeypatch, tmp_path):
    path = tmp_path / FILE
    path.write_bytes(b"of the file, kept\n")
    path.chmod(0o600)
    assert find(FAR, tmp_path) == find(NEAR, tmp_path) == b"of the file, kept"
    monkeypatch.setenv(VARIABLE, "of the environment")
    assert find(FAR, tmp_path) == b"of the environment"


def test_workers_only_on_loopback_need_no_secret(tmp_path):
    assert find(NEAR, tmp_path) == b""
    assert find(Worker(("a:1",), 0), tmp_path) == b""  # A single worker needs no secret.
    for other in ("10.0.0.1:1", "a:1", "localhost.example.org:1", "[::2]:1"):
        refused(Worker((*NEAR.addresses, other), 1), tmp_path)


def test_the_suggested_command_makes_a_secret(tmp_path):
    folder = tmp_path / "with a blank" / "run"
    what, remedy = refused(FAR, folder)
    assert what.startswith("worker 1 (b:1) has no secret")
    assert str(folder / FILE) in what
    line = remedy.partition(": ")[2].replace("python", os.sys.executable)
    subprocess.run(["bash", "-c", line], check=True)
    path = folder / FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(bytes.fromhex(find(FAR, folder).decode())) == 32
    assert stat.S_IMODE(folder.stat().st_mode) != 0o700  # Other users can read results.


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_file_with_permissions_for_others_is_refused(tmp_path, mode):
    path = tmp_path / FILE
    path.write_text("x" * 32)
    path.chmod(mode)
    for worker in (FAR, NEAR):
        what, remedy = refused(worker, tmp_path)
        assert f"{path} is a secret" in what
        assert "xxx" not in what + remedy
    subprocess.run(["bash", "-c", remedy.partition(": ")[2]], check=True)
    assert find(FAR, tmp_path) == b"x" * 32


@pytest.mark.parametrize("content", ["", "short", "x" * 5000, "\n" * 40])
def test_a_short_or_huge_secret_is_refused(tmp_path, monkeypatch, content):
    path = tmp_path / FILE
    path.write_text(content)
    path.chmod(0o600)
    what, _ = refused(NEAR, tmp_path)
    assert f"{path} has a secret of" in what
    monkeypatch.setenv(VARIABLE, content)
    what, remedy = refused(FAR, tmp_path)
    assert what.startswith(VARIABLE)
    assert remedy.count(VARIABLE) == 1


def test_a_secret_that_is_not_a_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / FILE)
    what, _ = refused(NEAR, tmp_path)
    assert "it is a FIFO" in what
