"""Names that end in .jpg may lead to pipes and devices: reading must not hang or be endless."""

import io
import os
import socket

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from trainer.data.bad_examples import BadExamples
from trainer.data.image_folder import list_files
from trainer.data.picture_files import UnreadableError, largest_file, look, orientation
from trainer.data.pipeline import evaluation
from trainer.data.sources import load
from trainer.errors import UserError
from trainer.system.tensorflow_errors import translate

LARGEST = largest_file(10**6)


def picture(turned: int = 1, size: tuple[int, int] = (8, 8), colour: int = 0) -> bytes:
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = turned
    Image.new("RGB", size, (colour, 0, 0)).save(file, "JPEG", exif=exif)
    return file.getvalue()


@pytest.fixture
def root(tmp_path):
    (tmp_path / "train" / "a").mkdir(parents=True)
    for number in range(3):
        (tmp_path / "train" / "a" / f"{number}.jpg").write_bytes(picture(6))
    return tmp_path


def pipe(path: str) -> None:
    os.mkfifo(path)


def bound_socket(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(path)


MAKERS = {
    "pipe": pipe,
    "socket": bound_socket,
    "device": lambda path: os.symlink("/dev/zero", path),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_a_file_that_is_not_regular_is_left_out(root, kind, monkeypatch):
    monkeypatch.chdir(root)  # A socket's name has at most 107 bytes.
    MAKERS[kind]("train/a/x.jpg")
    files = list_files(str(root), "train")
    assert len(files) == 3
    assert files.left_out == {"not a regular file": 1}


@pytest.mark.parametrize("kind", MAKERS)
def test_a_file_that_is_replaced_after_listing_is_refused(root, kind, monkeypatch):
    monkeypatch.chdir(root)
    source = load(f"image_folder:{root}", "train", None, 8, augment="imagenet")
    path = root / "train" / "a" / "1.jpg"
    path.unlink()
    MAKERS[kind]("train/a/1.jpg")
    bad = BadExamples(skip=False)
    batches = evaluation(source, batch_size=3, shards=1, augment="imagenet", bad=bad)
    message = rf"{path} cannot be used: it is a.*, not a regular file"
    with pytest.raises(UserError, match=message), translate(bad.refusal):
        list(batches)


def test_look_returns_orientations_and_empties_unreadable_paths(root):
    folder = root / "train" / "a"
    (folder / "sparse.jpg").write_bytes(b"")
    os.truncate(folder / "sparse.jpg", 2**40)
    paths = [os.fsencode(folder / name) for name in ("0.jpg", "gone.jpg", "sparse.jpg", "1.jpg")]
    found, orientations = look(np.array(paths, object), LARGEST)
    assert found.tolist() == [paths[0], b"", b"", paths[3]]
    assert orientations.tolist() == [6, 1, 1, 6]
    with pytest.raises(UnreadableError, match="1,099,511,627,776 bytes, too many for a picture"):
        orientation(paths[2], LARGEST)


def test_an_orientation_far_into_a_file_is_read(root):
    data = picture(6)
    other = b"\xff\xe2" + (60_002).to_bytes(2, "big") + bytes(60_000)
    path = root / "train" / "a" / "0.jpg"
    path.write_bytes(data[:2] + other + data[2:])
    assert orientation(str(path), LARGEST) == 6


def test_a_folder_of_turned_pictures_is_read_upright(tmp_path):
    """Stores an image, bright above and dark below, in all eight orientations."""
    folder = tmp_path / "train" / "a"
    folder.mkdir(parents=True)
    rows = np.linspace(250, 5, 24).astype(np.uint8)
    seen = Image.fromarray(np.tile(rows[:, None, None], (1, 24, 3)))
    back = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    for value in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = value
        stored = seen.transpose(back[value]) if value in back else seen
        stored.save(folder / f"{value}.jpg", exif=exif, quality=95)
    memory = load(f"image_folder:{tmp_path}", "train", None, 12).images
    skipping = BadExamples(skip=True)
    source = load(f"image_folder:{tmp_path}", "train", None, 12, bad=skipping)
    ((disk, _, weights),) = evaluation(source, batch_size=8, shards=1, bad=skipping)
    assert tf.reduce_all(weights == 1)
    for images in (memory, disk.numpy()):
        means = images.mean(axis=(2, 3))
        assert (np.diff(means, axis=1) < 0).all()
