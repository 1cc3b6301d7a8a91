"""Lists folders of images with odd names, other files, links, slices and mistakes."""

import os
import pathlib

import pytest

from trainer.data.folder_layout import evaluation_split
from trainer.data.image_folder import classes, list_files
from trainer.data.tfds.sizes import count_examples
from trainer.errors import UserError

KINDS = ("jpg", "png")
ORDER = [
    "a/1.jpg",
    "a/0.jpg",
    "a/1.png",
    "b/1.png",
    "b/2.jpg",
    "b/2.png",
    "a/0.png",
    "b/1.jpg",
    "b/0.jpg",
    "a/2.png",
    "a/2.jpg",
    "b/0.png",
]


def paths(files) -> list[str]:
    return [files.path(i) for i in range(len(files))]


def test_every_image_is_listed_once_with_any_name(touch):
    images = ["train/cat/a.jpg", "train/cat/b.JPEG", "train/a dog/ü ß.png", "train/a dog/1.JPG"]
    root = touch(*images, "train/cat/notes.txt", "train/cat/.DS_Store", "train/README.jpg", "x.jpg")
    assert sorted(paths(list_files(root, "train"))) == sorted(os.path.join(root, n) for n in images)
    assert classes(root, "train") == ["a dog", "cat"]


def test_a_split_has_any_name(touch):
    root = touch("fold 1.a/cat/1.jpg", "fold 2/cat/1.jpg", "fold 2/dog/1.jpg")
    assert paths(list_files(root, "fold 1.a")) == [f"{root}/fold 1.a/cat/1.jpg"]
    assert classes(root, "fold 2") == ["cat", "dog"]
    assert count_examples(f"image_folder:{root}", "fold 2", None) == 2


def test_files_left_out_are_counted(touch, tmp_path):
    root = touch(
        *(f"train/cat/{name}" for name in ("1.jpg", "2.WEBP", "3.gif", "4.bmp", "deeper/5.png")),
        *(f"train/cat/{name}" for name in ("a.txt", "b.TXT", "c.tiff", "d", "e.longer than that")),
        *(f"train/cat/{name}" for name in (".DS_Store", "._1.jpg", "Thumbs.db", "desktop.ini")),
        *("train/.ipynb_checkpoints/1.jpg", "train/__MACOSX/cat/._1.jpg", "train/.hidden"),
        *("train/cat/deeper/.ipynb_checkpoints/1.jpg", "train/1.jpg"),
    )
    os.mkfifo(tmp_path / "train" / "cat" / "pipe.jpg")
    files = list_files(root, "train")
    names = [os.path.relpath(path, f"{root}/train/cat") for path in paths(files)]
    assert sorted(names) == ["1.jpg", "2.WEBP", "3.gif", "4.bmp", "deeper/5.png"]
    assert classes(root, "train") == ["cat"]
    assert files.left_out == {
        "hidden": 8,
        ".txt": 2,
        ".tiff": 1,
        "no suffix": 1,
        "other": 1,
        "not a regular file": 1,
        "outside of class folders": 1,
    }
    assert count_examples(f"image_folder:{root}", "train", None) == 5


def test_links_that_lead_back_are_not_followed(touch, tmp_path):
    """Tests links to the class's folder, the split's, their parents, and twice to one elsewhere."""
    root = touch("train/a/1.jpg", "train/b/1.jpg", "elsewhere/2.jpg")
    folder = tmp_path / "train" / "a"
    for name, to in (("self", "."), ("split", ".."), ("root", "../.."), ("all", "/")):
        (folder / name).symlink_to(to)
    for name in ("one", "two"):
        (folder / name).symlink_to(tmp_path / "elsewhere")
    files = list_files(root, "train")
    names = sorted(os.path.relpath(path, f"{root}/train") for path in paths(files))
    assert names == ["a/1.jpg", "a/one/2.jpg", "b/1.jpg"]
    assert files.left_out == {"folder already listed": 5}
    (tmp_path / "train" / "loop").symlink_to(".")
    assert classes(root, "train") == ["a", "b"]


def test_the_order_of_old_folders_is_unchanged(touch):
    """`ORDER` is from the version before other formats and folders below classes counted."""
    root = touch(*(f"train/{label}/{i}.{s}" for label in "ab" for i in range(3) for s in KINDS))
    names = [os.path.relpath(path, f"{root}/train") for path in paths(list_files(root, "train"))]
    assert names == ORDER


def test_the_order_is_random_and_independent_of_the_folders_path(touch, tmp_path):
    names = [f"train/{label}/{i:03d}.jpg" for label in "abc" for i in range(200)]
    first = list_files(touch(*names), "train")
    moved = tmp_path.with_name("moved")
    tmp_path.rename(moved)
    second = list_files(str(moved), "train")
    assert [os.path.relpath(path, tmp_path) for path in paths(first)] == [
        os.path.relpath(path, moved) for path in paths(second)
    ]
    # About 60 of each class's 200 files are among the first 180; the bounds are 5 standard
    # deviations.
    counts = [sum(f"/{label}/" in path for path in paths(second)[:180]) for label in "abc"]
    assert all(30 < count < 90 for count in counts)


def test_slices_are_disjoint_and_complete(touch):
    root = touch(*(f"train/{label}/{i}.png" for label in "ab" for i in range(50)), "more/b/1.jpg")
    everything = paths(list_files(root, "train"))
    parts = [paths(list_files(root, split)) for split in ("train[:90%]", "train[90%:]")]
    assert parts[0] + parts[1] == everything
    joined = list_files(root, "train[:3]+more+train[97:]")
    assert paths(joined) == [*everything[:3], f"{root}/more/b/1.jpg", *everything[97:]]
    assert count_examples(f"image_folder:{root}", "train[:90%]+more", None) == 91


def test_classes_are_those_of_all_parts(touch):
    root = touch("train/b/1.jpg", "more/a/1.jpg", "more/c/1.jpg")
    assert classes(root, "train+more") == ["a", "b", "c"]


@pytest.mark.parametrize("there, found", [("test", "test"), ("validation", "validation")])
def test_the_usual_folder_is_evaluated_on(touch, there, found):
    root = touch("train/a/1.jpg", f"{there}/a/1.jpg")
    assert evaluation_split(root) == found
    assert evaluation_split(touch("val/a/1.jpg")) == "val"


@pytest.mark.parametrize(
    "names, split, message",
    [
        (
            ["train/a/1.jpg", "val/a/1.jpg"],
            "test",
            r"(?s)test cannot be read: .*Name a folder that exists in .*: train, val\.",
        ),
        (
            ["train/a/1.jpg", "train/b/1.tiff", "train/b/.DS_Store"],
            "train",
            r"train/b has no \.jpg, .* file \(it holds \.tiff 1, hidden 1\)\.\nRemove this folder",
        ),
        (["train/a/1.jpg"], "train[:", r"split 'train\[:' .* is unknown, ill-formed or empty"),
        (["train/a/1.jpg"], "train[:1%]", r"(?s)'train\[:1%\]' .* empty.*one of train \(1\)"),
    ],
)
def test_mistakes_in_splits_are_refused(touch, names, split, message):
    root = touch(*names)
    with pytest.raises(UserError, match=message):
        list_files(root, split)


def test_missing_folders_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"(?s)nowhere/train cannot be read: No such file"):
        list_files(str(tmp_path / "nowhere"), "train")
    (tmp_path / "train").mkdir()
    with pytest.raises(UserError, match=r"val, validation or test; it holds train\.\nSet"):
        evaluation_split(str(tmp_path))
    with pytest.raises(UserError, match=r"train has no class folders: put the images of"):
        list_files(str(tmp_path), "train")


@pytest.mark.parametrize("to", ["loop", "/nowhere/cat"])
def test_a_class_that_is_a_broken_link_is_refused(touch, tmp_path, to):
    """A class on a disk that is not mounted must not be left out like a stray file."""
    root = touch("train/a/1.jpg")
    (tmp_path / "train" / ".hidden").symlink_to(to)
    (tmp_path / "loop").symlink_to("loop")
    assert classes(root, "train") == ["a"]
    with pytest.raises(UserError, match=r"no folder named val, .*; it holds train\."):
        evaluation_split(root)
    (tmp_path / "train" / "loop").symlink_to(to)
    with pytest.raises(UserError, match=r"train/loop is a link that leads nowhere: restore"):
        classes(root, "train")


def test_a_broken_link_within_a_class_is_counted(touch, tmp_path):
    root = touch("train/a/1.jpg")
    (tmp_path / "train" / "a" / "more").symlink_to("/nowhere/more")
    assert list_files(root, "train").left_out == {"broken link": 1}


@pytest.mark.parametrize(
    "link, to", [("kitty", "cat"), ("cat/other", "../dog"), ("own", "dog/own")]
)
def test_a_folder_in_two_classes_is_refused(touch, tmp_path, link, to):
    root = touch("train/cat/1.jpg", "train/dog/1.jpg", "train/dog/own/2.jpg")
    (tmp_path / "train" / link).symlink_to(to)
    with pytest.raises(UserError, match=r"are the same folder, in two classes: its pictures would"):
        list_files(root, "train")


def test_a_path_that_is_too_long_is_refused(touch, tmp_path, monkeypatch):
    root = touch("train/a/1.jpg")
    monkeypatch.chdir(tmp_path / "train" / "a")
    for _ in range(20):
        os.mkdir("d" * 250)
        os.chdir("d" * 250)
    with pytest.raises(UserError, match=r"cannot be read: File name too long"):
        list_files(root, "train")


def test_a_class_that_cannot_be_listed_is_refused(touch, monkeypatch):
    root = touch("train/a/1.jpg")
    listed = os.scandir

    def denied(path: str):
        if path.endswith("/a"):
            raise PermissionError(13, "Permission denied", path)
        return listed(path)

    monkeypatch.setattr(os, "scandir", denied)  # The tests may run as root, whom chmod cannot stop.
    with pytest.raises(UserError, match=r"train/a cannot be read: Permission denied"):
        list_files(root, "train")


def test_links_to_files_and_folders_count(touch, tmp_path):
    root = touch("elsewhere/1.jpg")
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "a").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "2.jpg").symlink_to("1.jpg")
    assert len(list_files(root, "train")) == 2
    assert pathlib.Path(list_files(root, "train").path(0)).exists()
