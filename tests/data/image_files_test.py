"""Files are divided by a hash of their paths, and selected in TFDS's syntax."""

import hashlib

import numpy as np
import pytest

from trainer.data.image_files import Files, divided, division, part_names, path_hash, select
from trainer.errors import UserError


def listed(*paths: str, classes=("a", "b"), left_out=None) -> tuple[Files, np.ndarray]:
    """Files of class a, except those whose path starts with b, and their hashes."""
    names = np.array([path.encode() for path in paths], np.bytes_)
    labels = np.array([int(path.startswith("b")) for path in paths], np.int32)
    hashes = np.array([path_hash(path.encode()) for path in paths], np.uint64)
    folders = np.zeros(len(paths), np.int32)
    return Files(["/root"], folders, names, classes, labels, left_out or {}), hashes


PATHS = [f"{label}/{i}.jpg" for label in "ab" for i in range(500)]


def paths_of(files: Files) -> list[str]:
    return [files.path(i).removeprefix("/root/") for i in range(len(files))]


def test_the_division_is_by_the_hash_of_the_path():
    parts = divided(*listed(*PATHS, left_out={".txt": 3}))

    def for_evaluation(path: str) -> bool:
        digest = hashlib.blake2b(path.encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") % 10 == 0

    assert paths_of(parts["val"]) == [path for path in PATHS if for_evaluation(path)]
    assert paths_of(parts["train"]) == [path for path in PATHS if not for_evaluation(path)]
    # 1,000 draws of probability 0.1; the bounds are 5 standard deviations.
    assert 53 < len(parts["val"]) < 147
    assert (parts["train"].left_out, parts["val"].left_out) == ({".txt": 3}, {})


def test_a_new_picture_moves_no_other_one():
    before, after = divided(*listed(*PATHS)), divided(*listed("a/new.jpg", *PATHS[::-1]))
    for name in ("train", "val"):
        assert {*paths_of(after[name])} - {"a/new.jpg"} == {*paths_of(before[name])}


def test_a_class_without_pictures_in_a_part_is_named():
    for_evaluation = next(path for path in PATHS if path_hash(path.encode()) % 10 == 0)
    other = next(path for path in PATHS if path_hash(path.encode()) % 10)
    assert path_hash(b"b/0.jpg") % 10
    text = division(divided(*listed(for_evaluation, other, "b/0.jpg")))
    assert text == (
        "a hash of each path puts 2 pictures into train and 1 into val; val has no picture of b"
    )
    text = division(divided(*listed(for_evaluation, "b/0.jpg")))
    assert text.endswith("; train has no picture of a; val has no picture of b")


def test_counts_join_classes_of_one_name():
    files, _ = listed(*PATHS[:3], *PATHS[-2:], classes=("cat", "cat"))
    assert files.counts() == {"cat": 5}
    files, _ = listed(*PATHS[:3], *PATHS[-2:], classes=("z", "a"))
    assert list(files.counts().items()) == [("a", 2), ("z", 3)]


@pytest.mark.parametrize(
    "split, names",
    [
        ("train", ["train"]),
        ("train[:90%]+extra", ["train", "extra"]),
        ("a[1:]+ b + a[:1]", ["a", "b"]),
        ("fold 1.a", ["fold 1.a"]),
        (" a [1:] + ", ["a"]),
        ("", []),
    ],
)
def test_the_names_in_a_split(split, names):
    assert part_names(split) == names


def test_a_sum_has_the_pictures_and_classes_of_its_parts():
    parts = divided(*listed(*PATHS, left_out={"hidden": 1}))
    both = select(parts, "val[:3]+train", "set")
    assert paths_of(both) == paths_of(parts["val"])[:3] + paths_of(parts["train"])
    found = [both.class_names[place] for place in both.class_of]
    assert found == [path[0] for path in paths_of(both)]
    assert both.left_out == {"hidden": 1}
    with pytest.raises(UserError, match=r"(?s)split 'test' of set .*train \(\d+\), val \(\d+\)"):
        select(parts, "test", "set")


@pytest.mark.parametrize("name", ["fold 1", "fold.1", "v1/2", "a+b", "[a]", "\u00e9 1"])
def test_a_split_of_any_name_is_selected_whole(name):
    parts = {name: listed(*PATHS)[0], "empty": listed()[0]}
    assert paths_of(select(parts, name, "set")) == PATHS
    for slice_or_sum in (f"{name}[:1]", f"{name}+empty", "empty"):
        with pytest.raises(UserError, match="is unknown, ill-formed or empty"):
            select(parts, slice_or_sum, "set")


def test_all_is_the_split_of_that_name_or_the_sum_of_all_splits():
    parts = {"train": listed(*PATHS)[0], "val": listed(*PATHS[:3])[0]}
    assert len(select(parts, "all", "set")) == len(PATHS) + 3
    parts["all"] = listed(*PATHS[:2])[0]
    assert len(select(parts, "all", "set")) == 2
