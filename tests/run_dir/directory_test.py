import fcntl
import os
import subprocess
import sys
import threading

import pytest

from trainer.errors import UserError
from trainer.run_dir import directory
from trainer.run_dir.directory import is_held, keep_flags, lock_run_dir
from trainer.run_dir.result import read as result
from trainer.system.atomic_file import write_atomic

FLAGS = "--epochs=2.0\n--seed=0\n"


def test_keep_flags_writes_flags_txt(tmp_path):
    with lock_run_dir(tmp_path / "a" / "b", FLAGS):
        keep_flags(tmp_path / "a" / "b", FLAGS)
        assert (tmp_path / "a" / "b" / "flags.txt").read_text() == FLAGS


def test_the_same_run_may_lock_again(tmp_path):
    for _ in range(2):
        with lock_run_dir(tmp_path, FLAGS):
            assert result(tmp_path) is None


def test_another_run_is_rejected_with_the_differences(tmp_path):
    with lock_run_dir(tmp_path, FLAGS):
        keep_flags(tmp_path, FLAGS)
    with (
        pytest.raises(UserError, match=r"other flags: --epochs: 2.0 → 3.0; --seed: 0 → 1\.\nGive"),
        lock_run_dir(tmp_path, "--epochs=3.0\n--seed=1\n"),
    ):
        pass


@pytest.mark.parametrize("ranges", [0, 1])
def test_another_range_test_is_not_told_to_fork(tmp_path, ranges):
    """A fork cannot go on with or from a range test."""
    both = [FLAGS, "--anneal=range_test\n" + FLAGS]
    kept, other = both[ranges], both[1 - ranges]
    with lock_run_dir(tmp_path, kept):
        keep_flags(tmp_path, kept)
    with (
        pytest.raises(UserError, match="or name another --model_dir"),
        lock_run_dir(tmp_path, other),
    ):
        pass


def test_a_failed_start_leaves_the_directory_free_for_other_flags(tmp_path):
    with pytest.raises(UserError, match="bad batch"), lock_run_dir(tmp_path, FLAGS):
        raise UserError("bad batch")
    with lock_run_dir(tmp_path, "--epochs=3.0\n"):
        pass


def test_a_folder_with_other_files_is_rejected(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with (
        pytest.raises(UserError, match="exists and is not a run directory"),
        lock_run_dir(tmp_path, FLAGS),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_folder_that_becomes_a_run_meanwhile_is_accepted(tmp_path, monkeypatch):
    """Another process writes flags.txt and a log between two looks at the folder."""
    claimable = directory._claimable

    def begun_meanwhile(path):
        keep_flags(path, "--seed=1\n")
        (path / "metrics.jsonl").write_text("")
        return claimable(path)

    monkeypatch.setattr(directory, "_claimable", begun_meanwhile)
    directory.check(tmp_path, "--seed=1\n")


def test_a_file_is_rejected(tmp_path):
    (tmp_path / "x").touch()
    with pytest.raises(UserError, match="not a run directory"), lock_run_dir(tmp_path / "x", FLAGS):
        pass
    with (
        pytest.raises(UserError, match="cannot be used"),
        lock_run_dir(tmp_path / "x" / "y", FLAGS),
    ):
        pass


def test_a_run_that_was_killed_while_it_chose_micro_batches_begins_again(tmp_path):
    for name in ("lock", "micro_batch.json", "micro_batch_128.json", "micro_batch_160.json.tmp"):
        (tmp_path / name).touch()
    with lock_run_dir(tmp_path, FLAGS):
        pass
    (tmp_path / "micro_batch_large.json").touch()
    with pytest.raises(UserError, match="not a run directory"), lock_run_dir(tmp_path, FLAGS):
        pass


HOLD = """
import pathlib, sys
from trainer.run_dir.directory import lock_run_dir
with lock_run_dir(pathlib.Path(sys.argv[1]), sys.argv[2]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_lock_names_its_holder_and_ends_with_it(tmp_path):
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


def test_is_held_does_not_block_a_run(tmp_path):
    with lock_run_dir(tmp_path, FLAGS):
        assert is_held(tmp_path)
    assert not is_held(tmp_path)
    with open(tmp_path / "lock", "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        # is_held() holds the lock for a shorter time.
        timer = threading.Timer(0.05, fcntl.flock, (lock, fcntl.LOCK_UN))
        timer.start()
        with lock_run_dir(tmp_path, FLAGS):
            timer.join()


def test_errors_in_the_context_pass_through(tmp_path):
    with pytest.raises(FileNotFoundError), lock_run_dir(tmp_path, FLAGS):
        (tmp_path.parent / "nowhere").read_text()


def test_write_atomic_replaces(tmp_path):
    for text in ("one", "two"):
        write_atomic(tmp_path / "x", text)
    assert (tmp_path / "x").read_text() == "two"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_failed_write_atomic_leaves_no_file(tmp_path):
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


def test_the_folder_is_flushed_after_its_flags(tmp_path):
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
