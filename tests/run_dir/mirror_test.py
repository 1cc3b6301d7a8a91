"""Copies of a run directory in a bucket: what they hold, and what a kill leaves."""

import errno
import itertools
import json
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import time

import pytest

from tests.support.bucket_servers import kill
from trainer.buckets.objects import UnavailableError
from trainer.run_dir import manifest
from trainer.run_dir.mirror import Mirror
from trainer.run_dir.mirror_download import download

RECORD = struct.pack("<Q4x", 5) + b"event" + b"\0" * 4


def write(folder, update):
    """The state of a run after `update` updates; what older states have stays as it is."""
    folder.mkdir(exist_ok=True)
    (folder / "lock").write_text("process 1 on host\n")
    (folder / "secret").write_text("not for the bucket")
    (folder / "flags.txt").write_text("--epochs=1\n")
    with open(folder / "metrics.jsonl", "a") as file:
        file.write(json.dumps({"update": update}) + "\n")
    events = folder / "tensorboard/train/events.out.tfevents.1.host"
    events.parent.mkdir(parents=True, exist_ok=True)
    with open(events, "ab") as file:
        file.write(RECORD)
    for old in sorted(folder.glob("checkpoints/0*"))[:-1]:
        shutil.rmtree(old)
    checkpoint = folder / f"checkpoints/{update:09d}"
    checkpoint.mkdir(parents=True)
    (checkpoint / "checkpoint.index").write_bytes(b"index" * update)
    (checkpoint / "checkpoint.data-00000-of-00001").write_bytes(bytes([update]) * 1000)


def content(folder):
    """Every file that a mirror copies, by path."""
    found = {str(p.relative_to(folder)): p for p in folder.rglob("*") if p.is_file()}
    return {k: p.read_bytes() for k, p in found.items() if k not in ("lock", "secret")}


def restored(place, folder):
    folder.mkdir()
    found = download(place.connect(), place.url, folder)
    return found and found[0], content(folder)


def test_a_copy_has_all_files_of_the_run_and_none_of_the_machine(place, tmp_path):
    run = tmp_path / "run"
    write(run, 1)
    (run / "checkpoints/incomplete").mkdir()
    (run / "checkpoints/incomplete/checkpoint.index").write_text("half")
    (run / "result.json.tmp").write_text("half")
    (run / "link").symlink_to("/etc/passwd")
    assert Mirror(place.connect(), run, 1).copy()
    state, files = restored(place, tmp_path / "new")
    assert (state.generation, state.number) == (1, 1)
    expected = content(run)
    for name in ("checkpoints/incomplete/checkpoint.index", "result.json.tmp", "link"):
        expected.pop(name)
    assert files == expected
    assert not any("secret" in name for name in place.connect().names(""))


def test_a_run_without_flags_is_not_copied(place, tmp_path):
    (tmp_path / "micro_batch.json").write_text("{}")
    assert not Mirror(place.connect(), tmp_path, 1).copy()
    assert place.connect().names("") == []


def test_only_what_changed_is_uploaded(place, tmp_path):
    run = tmp_path / "run"
    write(run, 1)
    mirror = Mirror(place.connect(), run, 1)
    mirror.copy()
    before = len(place.proxy.requests)
    assert not mirror.copy()
    assert len(place.proxy.requests) == before
    write(run, 2)
    assert mirror.copy()
    first = manifest.newest(place.connect(), place.url).files
    assert [part.size for part in first["metrics.jsonl"]] == [14, 14]
    events = "tensorboard/train/events.out.tfevents.1.host"
    assert [part.size for part in first[events]] == [len(RECORD)] * 2
    assert content(run) == restored(place, tmp_path / "new")[1]


def test_a_log_is_copied_up_to_its_last_whole_line_or_record(place, tmp_path):
    run = tmp_path / "run"
    write(run, 1)
    whole = content(run)
    events = run / "tensorboard/train/events.out.tfevents.1.host"
    with open(run / "metrics.jsonl", "ab") as log, open(events, "ab") as file:
        log.write(b'{"upd')
        file.write(RECORD[:-1])
    mirror = Mirror(place.connect(), run, 1)
    mirror.copy()
    assert restored(place, tmp_path / "new")[1] == whole
    with open(run / "metrics.jsonl", "ab") as log, open(events, "ab") as file:
        log.write(b'ate": 2}\n')
        file.write(RECORD[-1:])
    mirror.copy()
    assert restored(place, tmp_path / "newer")[1] == content(run)


def test_a_log_with_many_parts_is_uploaded_whole(place, tmp_path):
    run = tmp_path / "run"
    write(run, 1)
    mirror = Mirror(place.connect(), run, 1)
    for update in range(70):
        with open(run / "metrics.jsonl", "a") as file:
            file.write(f"{update}\n")
        mirror.copy()
    parts = manifest.newest(place.connect(), place.url).files["metrics.jsonl"]
    assert len(parts) < 10
    assert restored(place, tmp_path / "new")[1] == content(run)


def test_objects_that_are_not_used_any_more_are_deleted(place, tmp_path):
    run = tmp_path / "run"
    mirror = Mirror(place.connect(), run, 2)
    place.connect().create("generation-000001/left-by-a-kill.000001", b"x")
    for update in range(1, 6):
        write(run, update)
        mirror.copy()
        mirror.clean()
    names = place.connect().names("")
    states = [name for name in names if "manifest" in name]
    assert states == [manifest.name(2, 4), manifest.name(2, 5)]
    assert not any(name.startswith("generation-000001") for name in names)
    # Those of the last three checkpoints: two manifests have two checkpoints each.
    assert len([name for name in names if name.endswith("index", 0, -7)]) == 3


def test_a_checkpoint_that_the_run_is_deleting_is_left_out(place, tmp_path):
    run = tmp_path / "run"
    write(run, 1)
    write(run, 2)
    (run / "checkpoints/000000001/checkpoint.index").unlink()
    Mirror(place.connect(), run, 1).copy()
    files = restored(place, tmp_path / "new")[1]
    assert not any(name.startswith("checkpoints/000000001") for name in files)
    assert any(name.startswith("checkpoints/000000002") for name in files)


def test_an_interrupted_copy_goes_on(place, tmp_path):
    run = tmp_path / "run"
    write(run, 1)
    mirror = Mirror(place.connect(), run, 1)
    place.proxy.rule = lambda request: 403 if request.number == 4 else None
    with pytest.raises(Exception, match="403"):
        mirror.copy()
    assert manifest.newest(place.connect(), place.url) is None
    uploads = len(place.proxy.requests)
    assert mirror.copy()
    assert restored(place, tmp_path / "new")[1] == content(run)
    assert uploads >= 4


# Two states of a run, each copied, with the deletion of what the second one does not need.
COPIES = """
import pathlib, sys
from tests.run_dir.mirror_test import write
from trainer.buckets import client, url
from trainer.run_dir.mirror import Mirror
run = pathlib.Path(sys.argv[1])
mirror = Mirror(client.connect(url.parse(sys.argv[2])), run, int(sys.argv[3]))
for update in (1, 2):
    write(run, update)
    mirror.copy()
    mirror.clean()
"""


def states(folder):
    """The content of the run directory after each of its states."""
    found = []
    for update in (1, 2):
        write(folder, update)
        found.append(content(folder))
    return found


def kill_at(place, number, arrives, folder):
    """Copies the states in a process that is killed at a request; returns its status.

    `arrives`: the request is carried out before the kill, and only its answer is lost.
    """
    running = []

    def end():
        while not running:
            time.sleep(0.001)
        kill(running[0].pid)

    def rule(request):
        if request.number != number:
            return None
        if arrives:
            return "kill"
        end()
        return "drop"

    place.proxy.requests.clear()
    place.proxy.rule, place.proxy.killed = rule, end
    command = [sys.executable, "-c", COPIES, str(folder), place.url, "1"]
    running.append(subprocess.Popen(command, stderr=subprocess.PIPE))
    _, errors = running[0].communicate()
    place.proxy.rule = lambda request: None
    assert running[0].returncode in (0, -9), errors
    return running[0].returncode


@pytest.mark.parametrize("arrives", [False, True], ids=["before", "after"])
def test_a_kill_at_any_request_leaves_a_whole_state(place, tmp_path, arrives):
    expected = states(tmp_path / "expected")
    committed = 0
    for number in itertools.count(1):
        place.folder = f"{tmp_path.name}/{number}"
        status = kill_at(place, number, arrives, tmp_path / f"run{number}")
        state, files = restored(place, tmp_path / f"new{number}")
        if status == 0:
            assert files == expected[-1]
            break
        if state is None:
            assert committed == 0
            continue
        assert state.number >= committed
        committed = state.number
        assert files == expected[committed - 1]
        # The next owner commits its own copy, and deletes all of the killed one's.
        owner = Mirror(place.connect(), tmp_path / f"new{number}", 2)
        owner.copy()
        owner.clean()
        assert manifest.newest(place.connect(), place.url).generation == 2
        assert all(n.startswith("generation-000002/") for n in place.connect().names(""))
    assert number > 10


def test_a_stalled_owner_cannot_harm_the_next_one(place, tmp_path):
    run, other = tmp_path / "run", tmp_path / "other"
    write(run, 1)
    stalled = Mirror(place.connect(), run, 1)
    stalled.copy()
    _, files = restored(place, other)
    owner = Mirror(place.connect(), other, 2)
    owner.copy()
    owner.clean()
    for update in (2, 3, 4):
        write(run, update)
        stalled.copy()
        stalled.clean()
    assert manifest.newest(place.connect(), place.url).generation == 2
    assert restored(place, tmp_path / "new")[1] == files
    shutil.rmtree(tmp_path / "new")
    write(other, 5)
    owner.copy()
    owner.clean()
    assert restored(place, tmp_path / "new")[1] == content(other)


def test_a_file_that_shrinks_is_copied_anew(place, tmp_path):
    run = tmp_path / "run"
    write(run, 1)
    write(run, 2)
    mirror = Mirror(place.connect(), run, 1)
    mirror.copy()
    temporary = pathlib.Path(run, "metrics.jsonl.tmp")
    temporary.write_text('{"update": 1}\n')
    os.replace(temporary, run / "metrics.jsonl")  # What a resumed run does.
    mirror.copy()
    assert restored(place, tmp_path / "new")[1] == content(run)


@pytest.mark.parametrize("verdict", ["after", 409, 503])
def test_a_manifest_whose_answer_is_lost_is_not_mistaken_for_a_newer_one(place, tmp_path, verdict):
    run = tmp_path / "run"
    write(run, 1)
    mirror = Mirror(place.connect(), run, 1)
    mirror.copy()
    write(run, 2)

    def manifests(request):
        return verdict if request.writes and "manifest" in request.path else None

    place.proxy.rule = manifests
    for update in (3, 4):
        with pytest.raises(UnavailableError):
            mirror.copy()
        write(run, update)
    place.proxy.rule = lambda request: None
    assert mirror.copy()
    mirror.clean()
    assert restored(place, tmp_path / "new")[1] == content(run)


def test_an_owner_without_all_files_keeps_those_of_lower_generations(place, tmp_path):
    write(tmp_path / "run", 1)
    Mirror(place.connect(), tmp_path / "run", 1).copy()
    before = place.connect().names("")
    owner = Mirror(place.connect(), tmp_path / "run", 2, keep_lower=True)
    owner.copy()
    owner.clean()
    assert {*before} <= {*place.connect().names("")}


def test_a_folder_that_cannot_be_read_is_an_error(place, tmp_path, monkeypatch):
    run = tmp_path / "run"
    write(run, 1)
    scandir = os.scandir

    def failing(path):
        if str(path).endswith("checkpoints"):
            raise OSError(errno.EMFILE, "Too many open files", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", failing)
    with pytest.raises(OSError, match="Too many open files"):
        Mirror(place.connect(), run, 1).copy()


def test_a_file_whose_name_is_not_printable_is_left_out_and_named(place, tmp_path, logged):
    run = tmp_path / "run"
    write(run, 1)
    (run / "a\nb").write_text("x")
    mirror = Mirror(place.connect(), run, 1)
    mirror.copy()
    mirror.copy()
    assert logged == [r"'a\nb' is not copied to the bucket, because its name is not printable"]
