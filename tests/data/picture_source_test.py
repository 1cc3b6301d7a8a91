"""Pictures without labels are read as those of an image folder, and bad ones are named."""

import os

import numpy as np
import tensorflow as tf

from tests.data.picture_files_test import picture
from trainer.data import image_folder, picture_source, pipeline
from trainer.data.bad_examples import BadExamples
from trainer.data.sources import load


def test_images_equal_those_of_a_folder(tmp_path):
    folder = tmp_path / "train" / "a"
    folder.mkdir(parents=True)
    for number in range(11):
        data = picture(turned=number % 8 + 1, size=(9, 9 + number), colour=20 * number)
        (folder / f"{number}.jpg").write_bytes(data)
    dataset = f"image_folder:{tmp_path}"
    files = image_folder.list_files(str(tmp_path), "train")
    paths = [os.fsencode(files.path(index)) for index in range(11)]
    expected = load(dataset, "train", None, 12).images
    source = picture_source.load(paths, (12, 12, 3), 10**6)
    batches = pipeline.evaluation(source, batch_size=5, shards=2)
    images = np.concatenate([images for images, _, _ in batches])
    np.testing.assert_array_equal(images[:11], expected)


def test_bad_pictures_have_weight_0_and_are_all_named(tmp_path, logged):
    paths = []
    for number in range(40):
        path = tmp_path / f"{number}.jpg"
        path.write_bytes(picture(colour=number) if number % 3 else b"text")
        paths.append(os.fsencode(path))
    os.unlink(paths[1])
    os.mkfifo(paths[1])
    bad = BadExamples(skip=True, most_reported=len(paths))
    source = picture_source.load(paths, (8, 8, 3), 10**6)
    batches = pipeline.evaluation(source, batch_size=8, shards=1, bad=bad)
    weights = tf.concat([weights for _, _, weights in batches], axis=0).numpy()
    wrong = {1, *range(0, 40, 3)}
    assert set(np.flatnonzero(weights == 0)) == wrong
    assert set(bad.reasons) == {os.fsdecode(paths[number]) for number in wrong}
    assert len(logged) == len(wrong)
    assert bad.reasons[os.fsdecode(paths[1])] == "it is a FIFO, not a regular file"
