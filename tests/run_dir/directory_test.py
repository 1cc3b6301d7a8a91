import fcntl
import os
import subprocess
import sys
import threading

import pytest

from trainer.errors import UserError
from trainer.run_dir.directory import is_held, keep_flags, lock_run_dir
from trainer.run_dir.result import read as result
from trainer.system.atomic_file import write_atomic

FLAGS = "--epochs=2.0\n--seed=0\n"


def test_a_new_directory_keeps_the_flags(tmp_path):
    with lock_run_dir(tmp_path / "a" / "b", FLAGS):
        keep_flags(tmp_path / "a" / "b", FLAGS)
        assert (tmp_path / "a" / "b" / "flags.txt").read_text() == FLAGS


def test_the_same_run_again(tmp_path):
    for _ in range(2):
        with lock_run_dir(tmp_path, FLAGS):
            assert result(tmp_path) is None


def test_another_run_is_refused_with_the_differences(tmp_path):
    with lock_run_dir(tmp_path, FLAGS):
        keep_flags(tmp_path, FLAGS)
    with (
        pytest.raises(UserError, match=r"other flags: --epochs: 2.0 → 3.0; --seed: 0 → 1\.\nGive"),
        lock_run_dir(tmp_path, "--epochs=3.0\n--seed=1\n"),
    ):
        pass


def test_a_start_that_failed_does_not_bind(tmp_path):
    with pytest.raises(UserError, match="bad batch"), lock_run_dir(tmp_path, FLAGS):
        raise UserError("bad batch")
    with lock_run_dir(tmp_path, "--epochs=3.0\n"):
        pass


def test_what_is_no_run_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with (
        pytest.raises(UserError, match="holds something that is no run"),
        lock_run_dir(tmp_path, FLAGS),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_is_no_directory(tmp_path):
    (tmp_path / "x").touch()
    with pytest.raises(UserError, match="no run"), lock_run_dir(tmp_path / "x", FLAGS):
        pass
    with (
        pytest.raises(UserError, match="cannot be used"),
        lock_run_dir(tmp_path / "x" / "y", FLAGS),
    ):
        pass


HOLD = """
import pathlib, sys
from trainer.run_dir.directory import lock_run_dir
with lock_run_dir(pathlib.Path(sys.argv[1]), sys.argv[2]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_directory_in_use_names_the_holder_and_a_killed_one_frees_it(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path), FLAGS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout.readline() == b"held\n"
        with (
            pytest.raises(UserError, match=rf"in use by process {holder.pid} on "),
            lock_run_dir(tmp_path, FLAGS),
        ):
            pass
    finally:
        holder.kill()
        holder.communicate()
    with lock_run_dir(tmp_path, FLAGS):
        assert f"process {os.getpid()}" in (tmp_path / "lock").read_text()


def test_who_looks_whether_it_is_held_is_in_nobodys_way(tmp_path):
    with lock_run_dir(tmp_path, FLAGS):
        assert is_held(tmp_path)
    assert not is_held(tmp_path)
    with open(tmp_path / "lock", "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        # Longer than anybody looks.
        timer = threading.Timer(0.05, fcntl.flock, (lock, fcntl.LOCK_UN))
        timer.start()
        with lock_run_dir(tmp_path, FLAGS):
            timer.join()


def test_other_errors_pass_through(tmp_path):
    with pytest.raises(FileNotFoundError), lock_run_dir(tmp_path, FLAGS):
        (tmp_path.parent / "nowhere").read_text()


def test_write_whole_replaces(tmp_path):
    for text in ("one", "two"):
        write_atomic(tmp_path / "x", text)
    assert (tmp_path / "x").read_text() == "two"
    assert len(list(tmp_path.iterdir())) == 1


def test_write_whole_leaves_nothing_where_it_cannot(tmp_path):
    (tmp_path / "x").mkdir()
    with pytest.raises(IsADirectoryError, match="x"):
        write_atomic(tmp_path / "x", "one")
    assert len(list(tmp_path.iterdir())) == 1


FLUSHED = """
import os, pathlib, sys
from trainer.run_dir.directory import keep_flags
flushed = []
fsync = os.fsync
os.fsync = lambda fd: (flushed.append(os.readlink(f"/proc/self/fd/{fd}")), fsync(fd))
keep_flags(pathlib.Path(sys.argv[1]), "--seed=0")
print(flushed)
"""


def test_the_folder_is_flushed_behind_its_flags(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FLUSHED, str(tmp_path)], capture_output=True, text=True
    )
    order = [f"{tmp_path}/flags.txt.tmp", str(tmp_path), str(tmp_path.parent)]
    assert done.stdout == f"{order}\n"


@pytest.mark.parametrize("content", ["PK\x03\x04\n", "--seed=0\n\0\0\n", "epochs=2\n", "-\n"])
def test_damaged_flags_are_named_with_their_line(tmp_path, content):
    (tmp_path / "flags.txt").write_text(content)
    with (
        pytest.raises(UserError, match=r"flags.txt is damaged: line [12], .* is not a flag\.\nR"),
        lock_run_dir(tmp_path, FLAGS),
    ):
        pass
