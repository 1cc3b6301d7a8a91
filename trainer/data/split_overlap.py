"""Warns if the evaluation and training splits have examples or identical pictures in common."""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator

from trainer.data import image_folder
from trainer.data.class_names import printable
from trainer.data.in_memory import InMemoryDataset
from trainer.data.indexed import IndexedDataset
from trainer.data.tfds import splits
from trainer.data.tfds.prepare import find_builder
from trainer.system.regular_file import read_regular

# Larger sets are not compared, because hashing takes about one second per gigabyte.
_MOST_BYTES = 2**30
# Splits with more files than this in total are not compared: reading one file's size takes 4 µs on
# a local disk and up to 1 ms on a network disk.
_MOST_FILES = 20_000


def warnings(
    dataset: str,
    data_dir: str | None,
    train: tuple[str, InMemoryDataset | IndexedDataset],
    evaluation: tuple[str, InMemoryDataset | IndexedDataset],
) -> list[str]:
    """Returns a list of at most one warning: that the splits have or may have images in common.

    Args:
      dataset: the value of --dataset.
      data_dir: folder of prepared sets; None: TFDS's default.
      train: the training split's name, as the user gave it, and its examples.
      evaluation: the evaluation split's name and its examples.
    """
    (first, training), (second, evaluated) = train, evaluation
    shared = _count_shared(dataset, data_dir, first, second)
    if shared:
        return [
            f"{shared:,} of the {evaluated.examples:,} images of {second} are in {first} too: the "
            "evaluation includes training images"
        ]
    pairs = identical(training, evaluated)
    if pairs is None:
        return [
            f"pictures of {second} may be in {first} too: they are not compared, because the "
            "splits are large or stored as records"
        ]
    if pairs:
        old, new = pairs[0]
        return [
            f"{len(pairs):,} of the {evaluated.examples:,} pictures of {second} are in {first} "
            f"too, such as {printable(new)} (in {first}: {printable(old)})"
        ]
    return []


def _count_shared(dataset: str, data_dir: str | None, first: str, second: str) -> int:
    if dataset.startswith(image_folder.PREFIX):
        return image_folder.count_shared(dataset.removeprefix(image_folder.PREFIX), first, second)
    infos = find_builder(dataset, data_dir).info.splits
    return splits.count_shared(infos, first, second, dataset)


def identical(
    training: InMemoryDataset | IndexedDataset, evaluation: InMemoryDataset | IndexedDataset
) -> list[tuple[str, str]] | None:
    """Returns pairs (name in `training`, name in `evaluation`) of equal pictures.

    Pictures in memory are compared after decoding and resizing, before augmentation; the name of a
    picture has its index. Files are compared by a hash of their bytes; the name of a file is its
    path. Unreadable files are skipped. Returns None if the splits are too large, or are stored as
    records.
    """
    if isinstance(training, InMemoryDataset) and isinstance(evaluation, InMemoryDataset):
        if training.images.nbytes + evaluation.images.nbytes > _MOST_BYTES:
            return None
        return _pairs(_pixel_digests(training), _pixel_digests(evaluation))
    if isinstance(training, InMemoryDataset) or isinstance(evaluation, InMemoryDataset):
        return None
    if training.path is None or evaluation.path is None:
        return None
    if training.examples + evaluation.examples > _MOST_FILES:
        return None
    old, new = _sizes(training, training.path), _sizes(evaluation, evaluation.path)
    both = set(old.values()) & set(new.values())  # Only files of equal size can be equal.
    old, new = ({at: n for at, n in sizes.items() if n in both} for sizes in (old, new))
    if sum(old.values()) + sum(new.values()) > _MOST_BYTES:
        return None
    return _pairs(_digests(old), _digests(new))


def _pairs(
    training: Iterable[tuple[bytes, str]], evaluation: Iterable[tuple[bytes, str]]
) -> list[tuple[str, str]]:
    known: dict[bytes, str] = {}
    for digest, name in training:
        known.setdefault(digest, name)
    return [(known[digest], name) for digest, name in evaluation if digest in known]


def _pixel_digests(source: InMemoryDataset) -> Iterator[tuple[bytes, str]]:
    for at, image in enumerate(source.images):
        yield _digest(image.tobytes()), f"number {at}"


def _sizes(source: IndexedDataset, path: Callable[[int], str]) -> dict[str, int]:
    """Returns the size in bytes of each existing file, by path."""
    sizes = {}
    for name in map(path, range(source.examples)):
        with contextlib.suppress(OSError):
            sizes[name] = os.stat(name).st_size
    return sizes


def _digests(paths: Iterable[str]) -> Iterator[tuple[bytes, str]]:
    for path in paths:
        with contextlib.suppress(OSError):
            yield _digest(read_regular(path, _MOST_BYTES)), path


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()
