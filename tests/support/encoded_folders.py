"""Folders of encoded images whose colours are their numbers, some of which cannot be decoded."""

import io
import itertools
import pathlib

import numpy as np
from PIL import Image

from trainer.config import augment_list
from trainer.data.in_memory import InMemoryDataset
from trainer.data.indexed import IndexedDataset
from trainer.data.pipeline import ExampleStream, training

SEED = 11
SIZE = 6  # pixels


def file_of(kind: str, number: int) -> bytes:
    """A flat image, whose colour encodes its number."""
    pixels = np.full((SIZE + number % 5, SIZE + number % 3, 3), 3 * number, np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def write_folder(
    root: pathlib.Path,
    examples: int,
    bad: dict[int, bytes | str] | None = None,
    split: str = "train",
) -> str:
    """Writes a set of images, half of them dark and half light, and returns its name.

    `bad` maps the number of an image to a file's bytes, or to "nothing" for a broken link.
    """
    for number in range(examples):
        path = root / split / f"{2 * number // examples}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        match (bad or {}).get(number, file_of("PNG" if number % 2 else "JPEG", number)):
            case bytes() as content:
                path.write_bytes(content)
            case "nothing":
                path.symlink_to(root / "nowhere")
    return f"image_folder:{root}"


BAD = {
    3: file_of("JPEG", 3)[:-20],  # cut off
    10: b"",
    17: b"a text that somebody named .jpg\n",
    24: file_of("TIFF", 24),
    31: "nothing",
}
WHERE = {"micro_batch_size": 8, "replicas": 1, "local_replicas": range(1)}


def numbers(images: np.ndarray) -> list[int]:
    """The numbers that the images' colours encode."""
    return np.rint(images[:, SIZE // 2, SIZE // 2].mean(axis=-1) / 3).astype(int).tolist()


def take(
    source: InMemoryDataset | IndexedDataset, count: int, **options
) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of at least the first `count` examples, in whole micro-batches."""
    where = WHERE | {"position": 0} | options
    augment, seed = where.pop("augment", "none"), where.pop("seed", SEED)
    stream = ExampleStream(source, augment_list.parse(augment), seed, where.pop("bad", None))
    elements = training(stream, **where).as_numpy_iterator()
    batches = list(itertools.islice(elements, -(-count // where["micro_batch_size"])))
    return tuple(np.concatenate(part) for part in list(zip(*batches, strict=True))[:2])


def numbers_of(source: IndexedDataset) -> list[int]:
    return [
        int(source.describe(i).rpartition("/")[2].partition(".")[0]) for i in range(source.examples)
    ]
