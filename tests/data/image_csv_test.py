"""Lists images that a CSV file names, and refuses its mistakes with their lines."""

import os

import pytest

from trainer.data import image_csv, image_folder, image_listing, sources
from trainer.data.tfds.sizes import count_examples
from trainer.errors import UserError

PHOTOS = [f"{label}/{i}.jpg" for label in ("cat", "dog") for i in range(40)]


@pytest.fixture
def write(tmp_path):
    """Returns a function that writes labels.csv from its lines, beside empty pictures."""

    def make(*lines: str, pictures=PHOTOS) -> str:
        for name in pictures:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        (tmp_path / "labels.csv").write_text("\n".join(lines))
        return str(tmp_path / "labels.csv")

    return make


def listed(files) -> list[tuple[str, str]]:
    """Path and class of each file."""
    return [(files.path(i), files.class_names[files.class_of[i]]) for i in range(len(files))]


def test_without_a_split_it_equals_the_folder(write, tmp_path):
    path = write("class,file", *(f"{name[:3]},./{name}" for name in reversed(PHOTOS)))
    for split in ("train", "val", "train[:20]", "val+train"):
        found = image_csv.list_files(path, split)
        assert listed(found) == listed(image_folder.list_files(str(tmp_path), split))
        assert count_examples(f"image_csv:{path}", split, None) == len(found)
    assert image_csv.classes(path, "train") == ["cat", "dog"]
    assert image_csv.evaluation_split(path) == "val"
    assert image_listing.count_shared(f"image_csv:{path}", "train", "val") == 0
    note = image_listing.note(f"image_csv:{path}", "train")
    assert note.startswith(f"{path}: paths are in column file, labels in class; without a column ")
    assert f" puts {len(image_csv.list_files(path, 'train'))} pictures into train and " in note


def test_a_column_of_splits_makes_the_splits(write, tmp_path):
    elsewhere = tmp_path.with_name(f"{tmp_path.name} elsewhere")
    elsewhere.mkdir()
    (elsewhere / "x.jpg").touch()
    path = write(
        "split;image;label",
        "train;cat/1.jpg;c",
        "train;dog/1.jpg;d, e",
        "train;dog//1.jpg;d, e",
        f"test;{elsewhere}/x.jpg;c",
        "test;dog/2.jpg; c ",
        "test;cat/1.jpg;c",
        "spare;cat/3.jpg;f",
    )
    train, test = (image_csv.list_files(path, split) for split in ("train", "test"))
    root = str(tmp_path)
    assert sorted(listed(train)) == [(f"{root}/cat/1.jpg", "c"), (f"{root}/dog/1.jpg", "d, e")]
    assert sorted(listed(test)) == sorted(
        [(f"{elsewhere}/x.jpg", "c"), (f"{root}/dog/2.jpg", "c"), (f"{root}/cat/1.jpg", "c")]
    )
    assert train.left_out == {"row given twice": 1}
    assert image_csv.classes(path, "train") == ["c", "d, e"]
    assert image_csv.classes(path, "train+spare") == ["c", "d, e", "f"]
    assert image_csv.evaluation_split(path) == "test"
    assert image_csv.count_shared(path, "train", "test") == 1
    assert (
        image_csv.note(path)
        == f"{path}: paths are in column image, labels in label, splits in split"
    )
    with pytest.raises(UserError, match=r"(?s)split 'val' .*one of train \(2\), test \(3\), spare"):
        image_csv.list_files(path, "val")


def test_splits_without_one_to_evaluate_on(write):
    path = write("path,label,split", "cat/1.jpg,cat,training")
    with pytest.raises(UserError, match=r"no split named val, .*; it has training\.\nSet --eval"):
        image_csv.evaluation_split(path)


def test_a_path_is_relative_to_the_csv_file_and_not_to_the_caller(write, tmp_path, monkeypatch):
    write("path,label,split", "cat/1.jpg,cat,train")
    monkeypatch.chdir(tmp_path)
    ((path, _),) = listed(image_csv.list_files("labels.csv", "train"))
    assert os.path.samefile(path, tmp_path / "cat" / "1.jpg")


@pytest.mark.parametrize(
    "lines, message",
    [
        (["path,label", "cat/1.jpg,cat", ",dog"], "line 3: path is empty"),
        (["path,label", "./,dog"], "line 2: path is empty"),
        (["path,label", "cat/1.jpg, "], "line 2: label is empty"),
        (["path,label,split", "cat/1.jpg,cat,"], "line 2: split is empty"),
        (
            ["path,label", "cat/1.jpg,cat", "dog/1.jpg,dog", "cat/./1.jpg,dog"],
            "line 4: cat/1.jpg has the label dog, and cat in line 2",
        ),
        (
            ["path,label", "cat/1.jpg,cat", "cat/no.jpg,cat"],
            "line 3: cat/no.jpg does not exist in ",
        ),
        (
            ["path,label", "no/1.jpg,cat", "cat/no.jpg,cat", "cat/1.jpg,cat"],
            "line 2: no/1.jpg, and 1 more do not exist in ",
        ),
        (["cat/1.jpg,cat", "cat/2.jpg,cat"], "line 1: no column holds the path"),
        (
            ["path,label,Class", "cat/1.jpg,cat,cat"],
            "line 1: several columns could hold the label: label and Class",
        ),
    ],
)
def test_mistakes_are_named_with_their_line(write, lines, message):
    path = write(*lines)
    for split in ("train", "val"):
        with pytest.raises(UserError) as refused:
            image_csv.list_files(path, split)
        assert f"{path} {message}" in str(refused.value)
        assert len(str(refused.value).splitlines()) == 2


def test_a_class_of_another_split_is_refused(write):
    path = write("path,label,split", "cat/1.jpg,cat,train", "dog/1.jpg,dog,val")
    with pytest.raises(
        UserError, match=r"labels\.csv val has classes that the run does not know: dog"
    ):
        sources.load(f"image_csv:{path}", "val", None, 8, class_names=("cat",))


def test_a_csv_file_without_its_prefix_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"write --dataset=image_csv:photos/labels\.csv"):
        count_examples("photos/labels.csv", "train", str(tmp_path))
