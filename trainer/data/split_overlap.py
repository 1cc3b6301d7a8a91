"""Warnings of an evaluation on what was trained on: shared examples, identical pictures."""

import hashlib

import numpy as np

from trainer.data import folder, splits
from trainer.data.encoded import Encoded
from trainer.data.images import Images
from trainer.data.prepare import find_builder

# Hashing takes about a second a gigabyte; larger sets are not looked through.
_MOST_BYTES = 2**30


def warnings(
    dataset: str,
    data_dir: str | None,
    train: tuple[str, Images | Encoded],
    evaluation: tuple[str, Images | Encoded],
) -> list[str]:
    """Returns a line for each reason to doubt the evaluation.

    Args:
      dataset: as --dataset has it.
      data_dir: where prepared sets are.
      train: the split that is trained on, as the user names it, and its examples.
      evaluation: the split that is evaluated on, likewise.
    """
    (first, training), (second, evaluated) = train, evaluation
    shared = _count_shared(dataset, data_dir, first, second)
    if shared:
        return [
            f"{shared:,} of the {evaluated.examples:,} images of {second} are in {first} too: the "
            "evaluation is of images that were trained on"
        ]
    identical = count_identical(training, evaluated)
    if identical is None:
        return [
            f"pictures of {second} may be in {first} too: sets on the disk are not looked through"
        ]
    if identical:
        return [
            f"{identical:,} of the {evaluated.examples:,} pictures of {second} are in {first} too, "
            "pixel for pixel"
        ]
    return []


def _count_shared(dataset: str, data_dir: str | None, first: str, second: str) -> int:
    if dataset.startswith(folder.PREFIX):
        return folder.count_shared(dataset.removeprefix(folder.PREFIX), first, second)
    infos = find_builder(dataset, data_dir).info.splits
    return splits.count_shared(infos, first, second, dataset)


def count_identical(training: Images | Encoded, evaluation: Images | Encoded) -> int | None:
    """Returns how many images of `evaluation` are in `training`; None: they were not compared.

    Images are compared as the model gets them, decoded and resized.
    """
    if isinstance(training, Encoded) or isinstance(evaluation, Encoded):
        return None
    if training.images.nbytes + evaluation.images.nbytes > _MOST_BYTES:
        return None
    known = set(map(_digest, training.images))
    return sum(_digest(image) in known for image in evaluation.images)


def _digest(image: np.ndarray) -> bytes:
    return hashlib.blake2b(image.tobytes(), digest_size=16).digest()
