"""Converts tiny real TFDS sets from TFRecord to ArrayRecord, and reads the result."""

import concurrent.futures
import json
import os
import pathlib
import resource
import time

import numpy as np
import pytest
import tensorflow as tf

from tests.support.colour_set import FEATURES, colour_examples, stacked
from trainer.data.in_memory import InMemoryDataset
from trainer.data.indexed import IndexedDataset
from trainer.data.sources import load
from trainer.data.tfds import convert as convert_module
from trainer.data.tfds.convert import convert
from trainer.errors import UserError
from trainer.main import main


def test_a_set_without_an_index_is_converted_once(write_set, capsys):
    """The error about a missing index names the command that makes it."""
    examples = colour_examples(300)
    data_dir = write_set("colour", FEATURES, {"train": examples, "test": examples[:9]})
    with pytest.raises(UserError, match=rf"(?s)convert --dataset=colour --data_dir={data_dir}$"):
        load("colour", "train", data_dir, 4, augment="imagenet")
    assert main(["crescendo", "convert", "--dataset=colour", f"--data_dir={data_dir}"]) == 0
    assert main(["crescendo", "convert", "--dataset=colour", f"--data_dir={data_dir}"]) == 0
    captured = capsys.readouterr()
    assert "it has an index already" in captured.out
    assert "files" not in captured.err  # The progress bar is only for terminals.
    source = load("colour", "train[10%:]", data_dir, 4, augment="imagenet")
    assert isinstance(source, IndexedDataset)
    assert (source.examples, source.classes, source.image_shape) == (270, 5, (4, 4, 3))
    (records,) = source.fetch(tf.constant([3, 269, 0], tf.int64))
    for record, example in zip(records, (examples[33], examples[299], examples[30]), strict=True):
        opened = source.open(record)
        np.testing.assert_array_equal(tf.io.decode_png(opened.content), example["image"])
        assert opened.label == example["label"]
        assert opened.orientation is None
    # Without crops, the set is still read into memory.
    np.testing.assert_array_equal(
        load("colour", "test", data_dir, None).images, stacked(examples[:9])
    )


def test_a_set_is_read_from_the_files_that_are_there(write_set):
    examples = colour_examples(30)
    data_dir = write_set("colour", FEATURES, {"train": examples})
    assert convert("colour", data_dir)
    (old,) = pathlib.Path(data_dir).glob("colour/*/*.tfrecord-*")
    old.unlink()
    np.testing.assert_array_equal(load("colour", "train", data_dir, None).images, stacked(examples))


def test_deleted_files_are_converted_again(write_set):
    data_dir = write_set("colour", FEATURES, {"train": colour_examples(30)})
    folder = convert("colour", data_dir)
    before = (folder / "dataset_info.json").read_text()
    (new,) = folder.glob("*.array_record-*")
    new.unlink()
    assert convert("colour", data_dir) == folder
    assert new.exists()
    assert (folder / "dataset_info.json").read_text() == before


def test_a_set_too_large_for_memory_is_read_by_index(write_set, monkeypatch):
    examples = colour_examples(50)
    monkeypatch.setattr(os, "sysconf", lambda _: 90)  # 8,100 bytes of memory; an image has 72
    data_dir = write_set("colour", FEATURES, {"train": [*examples, *examples]})
    with pytest.raises(UserError, match=r"no index, and its 100 images take .* GB, more than half"):
        load("colour", "train", data_dir, None)
    assert main(["crescendo", "convert", "--dataset=colour", f"--data_dir={data_dir}"]) == 0
    assert isinstance(load("colour", "train", data_dir, None), IndexedDataset)
    assert isinstance(load("colour", "train[:50]", data_dir, None), InMemoryDataset)


def test_files_with_other_names_are_converted(write_set):
    """The set has its own template for names, in a folder whose name contains a format's."""
    parent = pathlib.Path(write_set("colour", FEATURES, {"train": colour_examples(9)}))
    data_dir = parent / "all.tfrecord-sets"
    data_dir.mkdir()
    (parent / "colour").rename(data_dir / "colour")
    (path,) = data_dir.glob("colour/*/dataset_info.json")
    info = json.loads(path.read_text())
    info["splits"][0]["filepathTemplate"] = "{SPLIT}-{SHARD_X_OF_Y}.{FILEFORMAT}"
    path.write_text(json.dumps(info))
    (old,) = data_dir.glob("colour/*/*.tfrecord-*")
    old.rename(path.parent / "train-00000-of-00001.tfrecord")
    assert convert("colour", str(data_dir)) == path.parent
    assert (path.parent / "train-00000-of-00001.array_record").exists()
    source = load("colour", "train", str(data_dir), None, augment="imagenet")
    assert source.fetch(tf.constant([8], tf.int64))[0].numpy()[0]


def test_of_two_conversions_at_once_one_works(write_set, monkeypatch):
    """One makes each file; the other waits and uses them."""
    data_dir = write_set("colour", FEATURES, {"train": colour_examples(9)})
    copy, begun = convert_module._copy, []

    def slowly(*file) -> None:
        begun.append(file)
        time.sleep(0.5)
        copy(*file)

    monkeypatch.setattr(convert_module, "_copy", slowly)
    with concurrent.futures.ThreadPoolExecutor() as threads:
        made = list(threads.map(lambda _: convert("colour", data_dir), range(2)))
    assert len(begun) == 1
    assert made.count(None) == 1


def test_a_format_that_cannot_be_converted_is_not_sent_to_convert(write_set):
    """Training and convert named each other as the remedy."""
    data_dir = write_set("colour", FEATURES, {"train": colour_examples(9)})
    (path,) = pathlib.Path(data_dir).glob("colour/*/dataset_info.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"fileFormat": "riegeli"}))
    remedy = (
        r"prepared as riegeli.*\ntfds build colour --file_format=array_record --data_dir=FOLDER"
    )
    with pytest.raises(UserError, match=remedy):
        load("colour", "train", data_dir, None)
    with pytest.raises(UserError, match=remedy):
        convert("colour", data_dir)


def test_a_set_that_is_not_prepared_is_not_converted(tmp_path):
    with pytest.raises(UserError, match=rf"cifar10 is not prepared in {tmp_path}: training prep"):
        convert("cifar10", str(tmp_path))


def test_an_image_folder_is_not_converted(tmp_path):
    with pytest.raises(UserError, match="needs no converting"):
        convert(f"image_folder:{tmp_path}", None)


def test_no_further_file_is_started_after_an_error(write_set, monkeypatch):
    splits = {f"s{i}": colour_examples(2) for i in range(20)}
    data_dir = write_set("colour", FEATURES, splits)
    begun = []

    def fails(*file: object) -> None:
        begun.append(file)
        time.sleep(0.05)
        raise RuntimeError("write() failed")  # ArrayRecord's writer raises this on a full disk.

    monkeypatch.setattr("trainer.data.tfds.convert._copy", fails)
    monkeypatch.setattr("os.cpu_count", lambda: 128)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {3, 5})
    with pytest.raises(UserError, match=r"cannot be converted in .*: write\(\) failed"):
        convert("colour", data_dir)
    assert len(begun) < 10


def test_a_description_that_cannot_be_written_is_unchanged(write_set, monkeypatch):
    data_dir = write_set("colour", FEATURES, {"train": colour_examples(2)})
    (path,) = pathlib.Path(data_dir).glob("colour/*/dataset_info.json")
    before = json.loads(path.read_text())
    before["description"] = "long " * 100_000
    path.write_text(json.dumps(before))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, limits[1]))
    try:
        with pytest.raises(UserError, match=r"cannot be converted in .*: File too large"):
            convert("colour", data_dir)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert json.loads(path.read_text()) == before


def test_a_damaged_file_is_not_converted(write_set):
    data_dir = write_set("colour", FEATURES, {"train": colour_examples(50)})
    (path,) = pathlib.Path(data_dir).glob("colour/*/*.tfrecord-*")
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(UserError, match=r"(?s)colour is damaged in .*prepare it again"):
        convert("colour", data_dir)
    assert not list(path.parent.glob("*.array_record*"))
    with pytest.raises(UserError, match="no index"):
        load("colour", "train", data_dir, 4, augment="imagenet")


def test_tfrecord_beside_array_record_is_read(write_set):
    """The description names ArrayRecord first, and TFRecord as an alternative format."""
    examples = colour_examples(9)
    data_dir = write_set("colour", FEATURES, {"train": examples})
    assert main(["crescendo", "convert", "--dataset=colour", f"--data_dir={data_dir}"]) == 0
    (path,) = pathlib.Path(data_dir).glob("colour/*/dataset_info.json")
    info = json.loads(path.read_text())
    info["fileFormat"], info["alternativeFileFormats"] = "array_record", ["tfrecord"]
    path.write_text(json.dumps(info))
    images = load("colour", "train", data_dir, None).images
    np.testing.assert_array_equal(images, stacked(examples))
