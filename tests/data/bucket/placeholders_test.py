"""Local folders of listings: placeholders, and files that several listings share."""

import os

import pytest

from trainer.buckets.objects import Stat
from trainer.data.bucket.placeholders import digest, fill, is_placeholder, stamp, usable

LISTING = {
    "train/cat/1.jpg": Stat(1000, 50, "a"),
    "train/dog/é=%.jpg": Stat(7, 60, "b"),
    "empty.jpg": Stat(0, 70, "c"),
}


@pytest.fixture
def filled(tmp_path):
    """filled(name, listing, older) → the local folder `name` of a listing."""
    (tmp_path / "parts").mkdir()

    def call(name, listing=LISTING, older=()):
        (tmp_path / name).mkdir(exist_ok=True)
        fill(tmp_path / name, tmp_path / "parts", listing, [tmp_path / each for each in older])
        assert not any((tmp_path / "parts").iterdir())
        return tmp_path / name

    return call


def files(folder):
    return {str(p.relative_to(folder)): p for p in folder.rglob("*") if p.is_file()}


def fetch(path, content, stat):
    path.unlink()
    path.write_bytes(content)
    os.utime(path, ns=(stamp(stat), stamp(stat)))


def test_each_object_has_a_placeholder_of_its_size_without_content(filled):
    found = files(filled("new"))
    sizes = {name: path.stat().st_size for name, path in found.items()}
    assert sizes == {name: stat.size for name, stat in LISTING.items()}
    assert all(path.stat().st_blocks == 0 for path in found.values())
    whole = [name for name, path in found.items() if not is_placeholder(str(path))]
    assert whole == ["empty.jpg"]
    assert not is_placeholder(str(filled("new") / "missing"))


def test_a_fetched_file_is_shared_until_its_object_changes(filled):
    stat = LISTING["train/cat/1.jpg"]
    fetch(filled("old") / "train/cat/1.jpg", b"x" * 1000, stat)
    path = filled("same", older=["old"]) / "train/cat/1.jpg"
    assert path.read_bytes() == b"x" * 1000
    assert path.stat().st_nlink == 2
    changes = [stat._replace(tag="z"), stat._replace(modified=51), stat._replace(size=999)]
    for number, changed in enumerate(changes):
        listing = {**LISTING, "train/cat/1.jpg": changed}
        assert digest(listing) != digest(LISTING)
        path = filled(f"new{number}", listing, ["old", "same"]) / "train/cat/1.jpg"
        assert is_placeholder(str(path))
        assert path.stat().st_size == changed.size
        fetch(path, b"y" * changed.size, changed)
    # A process that began with the old listing goes on with its files.
    assert (filled("old") / "train/cat/1.jpg").read_bytes() == b"x" * 1000


def test_a_file_without_an_object_is_not_in_the_folder_of_a_later_listing(filled):
    filled("old")
    fewer = {name: stat for name, stat in LISTING.items() if "dog" not in name}
    new = filled("new", fewer, ["old"])
    assert files(new).keys() == fewer.keys()
    assert not (new / "train/dog").exists()


def test_names_that_cannot_be_paths_are_told(filled):
    good = ["a", "b/c", "b/d.e", "b/.hidden"]
    wrong = ["/a", "x//y", "../z", "b/./c", "b", "nul\0", "é" * 128]
    listing = {name: Stat(5, 1, "") for name in [*wrong, *good]}
    kept, others = usable(listing)
    assert (list(kept), others) == (good, wrong)
    filled("new", kept)


def test_markers_of_folders_are_folders(filled):
    markers = {"": Stat(0, 1, ""), "train": Stat(0, 1, ""), "train/owl": Stat(0, 1, "")}
    kept, others = usable({**LISTING, **markers})
    assert not others
    folder = filled("new", kept)
    assert files(folder).keys() == LISTING.keys()
    assert (folder / "train/owl").is_dir()


def test_a_file_system_without_links_has_the_same_files(filled, monkeypatch):
    def no_links(source, target):
        raise PermissionError(1, "Operation not permitted", str(source))

    monkeypatch.setattr(os, "link", no_links)
    fetch(filled("old") / "train/cat/1.jpg", b"x" * 1000, LISTING["train/cat/1.jpg"])
    found = files(filled("new", older=["old"]))
    assert found.keys() == LISTING.keys()
    assert is_placeholder(str(found["train/cat/1.jpg"]))


def test_a_file_that_a_cleaner_removed_has_a_placeholder_again(filled):
    """A program that deletes old files in caches must not make the set smaller."""
    stat = LISTING["train/cat/1.jpg"]
    path = filled("new") / "train/cat/1.jpg"
    fetch(path, b"x" * 1000, stat)
    path.unlink()
    assert is_placeholder(str(filled("new") / "train/cat/1.jpg"))
