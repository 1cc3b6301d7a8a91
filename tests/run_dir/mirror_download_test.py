"""Reads of a run's copy in a bucket: damage, and an owner that writes meanwhile."""

import pytest

from tests.support.mirrors import content, restored, write
from trainer.errors import UserError
from trainer.run_dir import manifest
from trainer.run_dir.mirror import Mirror
from trainer.run_dir.mirror_download import download


@pytest.fixture
def run(place, tmp_path):
    """A run with two checkpoints, copied by the first owner."""
    folder = tmp_path / "run"
    write(folder, 1)
    write(folder, 2)
    Mirror(place.connect(), folder, 1).copy()
    return folder


def replace(place, path, value):
    """Replaces the object of a file in the bucket."""
    (part,) = manifest.newest(place.connect(), place.url).files[path]
    bucket = place.connect()
    bucket.delete(part.name)
    if value is not None:
        bucket.create(part.name, value)
    return part.name


@pytest.mark.parametrize("value", [b"", b"other", b"\2" * 999 + b"\3"])
def test_a_damaged_checkpoint_is_left_out_and_named(place, run, tmp_path, logged, value):
    path = "checkpoints/000000002/checkpoint.data-00000-of-00001"
    name = replace(place, path, value)
    files = restored(place, tmp_path / "new")[1]
    assert files == {k: v for k, v in content(run).items() if "000000002" not in k}
    assert logged == [f"{place.url}/{name} is damaged, and checkpoints/000000002 is left out"]


def test_a_damaged_log_keeps_the_lines_before_the_damage(place, tmp_path, logged):
    run = tmp_path / "run"
    mirror = Mirror(place.connect(), run, 1)
    for update in (1, 2, 3):
        write(run, update)
        mirror.copy()
    parts = manifest.newest(place.connect(), place.url).files["metrics.jsonl"]
    place.connect().delete(parts[1].name)
    place.connect().create(parts[1].name, b"{}")
    assert restored(place, tmp_path / "new")[1]["metrics.jsonl"] == b'{"update": 1}\n'
    assert "its lines and all later ones are left out" in logged[0]


def test_a_run_without_an_intact_checkpoint_is_refused(place, run, tmp_path, logged):
    for update in (1, 2):
        replace(place, f"checkpoints/{update:09d}/checkpoint.index", b"")
    with pytest.raises(UserError, match=r"every checkpoint of .* is damaged"):
        restored(place, tmp_path / "new")


@pytest.mark.parametrize("file", ["flags.txt", "training_data.json", "forked_from.json"])
def test_a_damaged_file_that_a_run_needs_is_refused(place, tmp_path, file):
    write(tmp_path / "run", 1)
    (tmp_path / "run" / file).write_text("1")
    Mirror(place.connect(), tmp_path / "run", 1).copy()
    replace(place, file, b"other")
    with pytest.raises(UserError, match=f"the run cannot resume without {file}"):
        restored(place, tmp_path / "new")


def test_a_missing_object_is_refused(place, run, tmp_path):
    replace(place, "metrics.jsonl", None)
    with pytest.raises(UserError, match="does not exist"):
        restored(place, tmp_path / "new")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{}",
        b'{"version": 2, "files": {}}',
        b'{"version": 1, "files": {"../x": []}}',
        b'{"version": 1, "files": {"/etc/passwd": []}}',
        b'{"version": 1, "files": {"//etc/passwd": []}}',
        b'{"version": 1, "files": {"x": [{"name": "lease.json", "size": 1, "sha256": "0"}]}}',
    ],
)
def test_a_damaged_manifest_is_refused_with_a_remedy(place, run, tmp_path, text):
    place.connect().create(manifest.name(1, 2), text)
    with pytest.raises(UserError, match="Delete it in the bucket to use the manifest before it"):
        restored(place, tmp_path / "new")


def test_a_reader_takes_the_state_that_replaces_the_one_it_reads(place, run, tmp_path):
    mirror = Mirror(place.connect(), run, 2)
    copied = []

    def rule(request):
        # Once the reader has the manifest, the next owner replaces it, and deletes its objects.
        if not copied and request.method == "GET" and "metrics.jsonl" in request.path:
            copied.append(True)
            write(run, 3)
            mirror.copy()
            mirror.clean()

    place.proxy.rule = rule
    state, files = restored(place, tmp_path / "new")
    assert (state.generation, state.number) == (2, 1)
    assert files == content(run)


def test_only_wanted_files_are_read(place, run, tmp_path):
    folder = tmp_path / "new"
    folder.mkdir()
    download(place.connect(), place.url, folder, lambda path: path == "metrics.jsonl")
    assert [*content(folder)] == ["metrics.jsonl"]


def test_an_empty_folder_has_no_state(place, tmp_path):
    assert restored(place, tmp_path / "new") == (None, {})
