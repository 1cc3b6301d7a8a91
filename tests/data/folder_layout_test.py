"""Folders are splits or classes by one rule, and are refused by name if they could be either."""

import os

import pytest

from trainer.data import image_folder, image_listing
from trainer.data.folder_layout import evaluation_split, holds_classes
from trainer.data.tfds.sizes import count_examples
from trainer.errors import UserError

PHOTOS = [f"{label}/{i}.jpg" for label in ("cat", "dog") for i in range(40)]


def relative(root, files) -> list[str]:
    return [os.path.relpath(files.path(i), root) for i in range(len(files))]


def test_classes_without_splits_are_divided(touch):
    root = touch(*PHOTOS, "dog/deeper/1.PNG", "cat/notes.txt", "README.md", ".git/x.jpg")
    found = {split: image_folder.list_files(root, split) for split in ("train", "val")}
    both = [name for files in found.values() for name in relative(root, files)]
    assert sorted(both) == sorted([*PHOTOS, "dog/deeper/1.PNG"])
    assert 0 < len(found["val"]) < 25
    assert found["train"].left_out == {".txt": 1, "hidden": 1, "outside of class folders": 1}
    assert image_folder.classes(root, "train") == image_folder.classes(root, "val[:50%]")
    assert image_folder.classes(root, "train") == ["cat", "dog"]
    assert evaluation_split(root) == "val"
    dataset = f"image_folder:{root}"
    assert count_examples(dataset, "train", None) == len(found["train"])
    assert count_examples(dataset, "train+val", None) == 81
    assert image_listing.count_shared(dataset, "train", "val") == 0
    assert image_listing.count_shared(dataset, "train[:10]+val", "train[5:]+val[:2]") == 7
    assert image_listing.note(dataset, "train") == (
        f"{root} has no folders train and val: a hash of each path puts {len(found['train'])} "
        f"pictures into train and {len(found['val'])} into val"
    )


@pytest.mark.parametrize("name", ["train", "val", "validation", "test"])
def test_a_folder_with_the_name_of_a_split_means_splits(touch, name):
    root = touch("cat/1.jpg", f"{name}/cat/1.jpg")
    assert not holds_classes(root, ["train"])
    assert image_listing.note(f"image_folder:{root}", "train") == ""
    if name == "train":
        assert relative(root, image_folder.list_files(root, "train")) == ["train/cat/1.jpg"]
    else:
        with pytest.raises(UserError, match=rf"(?s)train cannot be read: .*in .*: cat, {name}"):
            image_folder.list_files(root, "train")


def test_a_split_on_a_disk_that_is_not_mounted_is_still_a_split(touch, tmp_path):
    root = touch("cat/1.jpg")
    (tmp_path / "train").symlink_to("/nowhere/train")
    assert not holds_classes(root, ["train"])


def test_other_splits_are_folders(touch):
    root = touch("more/cat/1.jpg", "rest/cat/2.jpg")
    assert relative(root, image_folder.list_files(root, "more")) == ["more/cat/1.jpg"]
    assert len(image_folder.list_files(root, "more+rest")) == 2


@pytest.mark.parametrize(
    "names, reason",
    [
        (["Train/cat/1.jpg", "Test/cat/1.jpg"], "Test may be a split or a class"),
        (["cat/1.jpg", "valid/1.jpg"], "valid may be a split or a class"),
        (
            ["a/cat/1.jpg", "b/cat/1.jpg"],
            "no folder in it directly holds a picture, so a, b may be splits",
        ),
        (["cat/1.jpg", "fold1/cat/2.jpg"], "it has fold1/cat and cat, so fold1 may be a split"),
    ],
)
def test_ambiguous_folders_are_refused_by_name(touch, names, reason):
    root = touch(*names)
    for ask in (
        lambda: image_folder.list_files(root, "train"),
        lambda: image_folder.classes(root, "val"),
        lambda: evaluation_split(root),
    ):
        with pytest.raises(UserError) as refused:
            ask()
        first, second = str(refused.value).splitlines()
        assert first == (
            f"{root} has no folder named train, val, validation or test, and {reason}."
        )
        assert second.startswith("If they are splits, name them with --train_split")


def test_links_that_lead_back_and_empty_classes(touch, tmp_path):
    root = touch("cat/1.jpg")
    (tmp_path / "loop").symlink_to(".")
    assert holds_classes(root, ["train", "val"])
    (tmp_path / "owl").mkdir()
    with pytest.raises(UserError, match=r"owl has no \.jpg, .* file \(it holds nothing\)"):
        image_folder.list_files(root, "train")
    (tmp_path / "ape").symlink_to("/nowhere/ape")
    with pytest.raises(UserError, match="link that leads nowhere"):
        image_folder.list_files(root, "train")
