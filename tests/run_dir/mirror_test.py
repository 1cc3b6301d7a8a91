"""Copies of a run directory in a bucket: what is copied, and when."""

import errno
import os
import pathlib

import pytest

from tests.support.mirrors import RECORD, content, restored, write
from trainer.buckets.objects import UnavailableError
from trainer.run_dir import manifest
from trainer.run_dir.mirror import Mirror


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
