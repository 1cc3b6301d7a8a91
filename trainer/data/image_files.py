"""Describes lists of image files, and selects the files of a split in TFDS's syntax.

Files are sorted by a hash of their path. So a slice such as train[:90%] has about 90% of the files
of each class, and the same files on every machine. If a dataset has no splits of its own, the same
hash divides its files into splits. The hash depends only on a file's path, so adding or removing a
file does not move any other file to another split.
"""

import collections
import dataclasses
import hashlib
import os
import re
from collections.abc import Mapping, Sequence

import numpy as np

from trainer.data.class_names import few, number
from trainer.data.tfds.splits import pieces, split_infos

TRAIN, EVALUATION = "train", "val"
# Names of the split for evaluation; the first one that exists is the default.
EVALUATION_SPLITS = (EVALUATION, "validation", "test")
_EVALUATION_SHARE = 10  # One file in ten is for evaluation.


@dataclasses.dataclass(frozen=True, eq=False)
class Files:
    """Files of a split, in a fixed order.

    Attributes:
      folders: paths of folders.
      folder_of: index in `folders` of each file's folder, int32 [N] for N files.
      names: path of each file below its folder, bytes [N]. Python strings would take 100 MB for a
        million files.
      class_names: names of classes, in any order; after `select`, a name may occur twice.
      class_of: index in `class_names` of each file's class, int32 [N].
      left_out: number of files and folders left out, by kind.
    """

    folders: Sequence[str]
    folder_of: np.ndarray
    names: np.ndarray
    class_names: Sequence[str]
    class_of: np.ndarray
    left_out: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.names)

    def path(self, index: int) -> str:
        """Returns the path of the file at `index`."""
        return os.path.join(self.folders[self.folder_of[index]], os.fsdecode(self.names[index]))

    def chosen(self, at: np.ndarray | slice) -> "Files":
        """Returns the files at the indices `at`, in this order; keeps all folders and classes."""
        return dataclasses.replace(
            self,
            folder_of=self.folder_of[at],
            names=self.names[at],
            class_of=self.class_of[at],
        )

    def counts(self) -> dict[str, int]:
        """Returns the number of files of each class, by the class's name."""
        found = dict.fromkeys(sorted(self.class_names), 0)
        numbers = np.bincount(self.class_of, minlength=len(self.class_names)).tolist()
        for name, count in zip(self.class_names, numbers, strict=True):
            found[name] += count
        return found


def path_hash(path: bytes) -> int:
    """Returns a 64-bit hash of `path`, a file's path below the dataset's folder."""
    return int.from_bytes(hashlib.blake2b(path, digest_size=8).digest())


def part_names(split: str) -> list[str]:
    """Returns the names of the splits in `split`: train and extra for train[:90%]+extra."""
    found = (name.strip() for name in re.findall(r"(?:^|\+)([^\[+]+)", split))
    return list(dict.fromkeys(filter(None, found)))


def select(parts: Mapping[str, Files], split: str, dataset: str) -> Files:
    """Returns the files of a split in TFDS's syntax, such as train[:90%]+extra.

    Args:
      parts: files of the dataset's splits, by the split's name.
      split: a split in TFDS's syntax.
      dataset: value of --dataset, for messages.

    Raises:
      UserError: if the split is ill-formed, unknown or empty.
    """
    infos = split_infos({name: len(files) for name, files in parts.items()})
    chosen = [
        (name, parts[name].chosen(slice(start, stop)))
        for name, start, stop in pieces(infos, split, dataset)
    ]
    left_out: collections.Counter[str] = collections.Counter()
    for name in dict.fromkeys(name for name, _ in chosen):
        left_out.update(parts[name].left_out)
    files = [piece for _, piece in chosen]
    first_folder = np.cumsum([0, *(len(each.folders) for each in files)])
    first_class = np.cumsum([0, *(len(each.class_names) for each in files)])
    return Files(
        [folder for each in files for folder in each.folders],
        _joined([each.folder_of for each in files], first_folder),
        np.concatenate([each.names for each in files]),
        [name for each in files for name in each.class_names],
        _joined([each.class_of for each in files], first_class),
        left_out,
    )


def _joined(indices: Sequence[np.ndarray], firsts: np.ndarray) -> np.ndarray:
    """Returns all `indices` in one array, after adding firsts[i] to each element of indices[i]."""
    moved = [each + first for each, first in zip(indices, firsts, strict=False)]
    return np.concatenate(moved).astype(np.int32)


def divided(files: Files, hashes: np.ndarray) -> dict[str, Files]:
    """Divides files into the splits train and val; val gets the files with hashes divisible by 10.

    `hashes`, uint64 [N], has the hash of each file.
    """
    for_evaluation = hashes % np.uint64(_EVALUATION_SHARE) == 0
    (train,), (evaluation,) = np.nonzero(~for_evaluation), np.nonzero(for_evaluation)
    return {
        TRAIN: files.chosen(train),
        # Only train reports the files that were left out, so that a sum over splits is correct.
        EVALUATION: dataclasses.replace(files.chosen(evaluation), left_out={}),
    }


def division(parts: Mapping[str, Files]) -> str:
    """Describes the splits that `divided` made: their sizes, and the classes that each lacks."""
    train, evaluation = parts[TRAIN], parts[EVALUATION]
    text = (
        f"a hash of each path puts {number(len(train), 'picture')} into {TRAIN} and "
        f"{len(evaluation):,} "
        f"into {EVALUATION}"
    )
    for name, files in parts.items():
        if lacking := [each for each, count in files.counts().items() if not count]:
            text += f"; {name} has no picture of {few(lacking)}"
    return text
