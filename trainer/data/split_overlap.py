"""Warns if the evaluation and training splits have examples or identical pictures in common."""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator

from trainer.data import image_listing
from trainer.data.bucket import open_folders
from trainer.data.class_names import printable
from trainer.data.in_memory import InMemoryDataset
from trainer.data.indexed import IndexedDataset
from trainer.data.python import dataset as python_dataset
from trainer.data.tfds import splits
from trainer.data.tfds.prepare import find_builder
from trainer.system.regular_file import read_regular

# If two splits together have more bytes or files than these limits, they are not compared. Hashing
# takes about one second per gigabyte. Reading the size of one file takes 4 µs on a local disk, and
# up to 1 ms on a network disk.
_MOST_BYTES = 2**30
_MOST_FILES = 20_000


def warnings(
    dataset: str,
    data_dir: str | None,
    train: tuple[str, InMemoryDataset | IndexedDataset],
    evaluation: tuple[str, InMemoryDataset | IndexedDataset],
) -> list[str]:
    """Returns one warning if the splits have, or may have, images in common; otherwise [].

    Args:
      dataset: the value of --dataset.
      data_dir: folder of prepared sets; None: TFDS's default.
      train: the name of the training split, and its examples.
      evaluation: the name of the evaluation split, and its examples.
    """
    (first, training), (second, evaluated) = train, evaluation
    if dataset == python_dataset.DATASET:
        shared = 0
    elif image_listing.is_listed(dataset):
        shared = image_listing.count_shared(dataset, first, second)
    else:
        infos = find_builder(dataset, data_dir).info.splits
        shared = splits.count_shared(infos, first, second, dataset)
    if shared:
        return [
            f"{shared:,} of the {evaluated.examples:,} images of {second} are in {first} too: the "
            "evaluation includes training images"
        ]
    pairs = identical(training, evaluated)
    if pairs is None and dataset == python_dataset.DATASET:
        return []  # The Python program may have read the files anywhere.
    if pairs is None:
        return [
            f"pictures of {second} may be in {first} too: they are not compared, because the "
            "splits are large, or are stored as records"
        ]
    if pairs:
        old, new = pairs[0]
        return [
            f"{len(pairs):,} of the {evaluated.examples:,} pictures of {second} are in {first} "
            f"too, such as {_shown(new)} (in {first}: {_shown(old)})"
        ]
    return []


def _shown(name: str) -> str:
    return printable(open_folders.shown(name))


def identical(
    training: InMemoryDataset | IndexedDataset, evaluation: InMemoryDataset | IndexedDataset
) -> list[tuple[str, str]] | None:
    """Returns pairs (name in `training`, name in `evaluation`) of equal pictures.

    If both splits are in memory and have the same image size, their decoded pixels are compared.
    Otherwise, the bytes of the files are compared. The names are paths, or indices if the files are
    not known. Unreadable files are skipped. The result is None if the splits are too large, or if
    they cannot be compared because the files are not known.
    """
    if (
        isinstance(training, InMemoryDataset)
        and isinstance(evaluation, InMemoryDataset)
        and training.image_shape == evaluation.image_shape
    ):
        if training.images.nbytes + evaluation.images.nbytes > _MOST_BYTES:
            return None
        return _pairs(_pixel_digests(training), _pixel_digests(evaluation))
    if training.path is None or evaluation.path is None:  # The files are not known.
        return None
    if training.examples + evaluation.examples > _MOST_FILES:
        return None
    old, new = _sizes(training, training.path), _sizes(evaluation, evaluation.path)
    both = set(old.values()) & set(new.values())  # Only files of equal size can be equal.
    old, new = ({at: n for at, n in sizes.items() if n in both} for sizes in (old, new))
    if sum(old.values()) + sum(new.values()) > _MOST_BYTES:
        return None
    if both and (folder := open_folders.of(next(iter(old)))):
        folder.bring([*old, *new])
    return _pairs(_digests(old), _digests(new))


def _pairs(
    training: Iterable[tuple[bytes, str]], evaluation: Iterable[tuple[bytes, str]]
) -> list[tuple[str, str]]:
    known: dict[bytes, str] = {}
    for digest, name in training:
        known.setdefault(digest, name)
    return [(known[digest], name) for digest, name in evaluation if digest in known]


def _pixel_digests(source: InMemoryDataset) -> Iterator[tuple[bytes, str]]:
    name = source.path or "index {}".format
    for at, image in enumerate(source.images):
        yield _digest(image.tobytes()), name(at)


def _sizes(source: InMemoryDataset | IndexedDataset, path: Callable[[int], str]) -> dict[str, int]:
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
