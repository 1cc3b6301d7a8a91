"""A folder of images, PATH/<split>/<class>/<name>.jpg, as a list of files in a fixed order.

The order is that of a hash of class and name. So a slice such as train[:90%] holds a part of every
class, and is the same on every machine. No TensorFlow: `plan` counts examples by this.
"""

import concurrent.futures
import dataclasses
import hashlib
import os
import re
from collections.abc import Sequence

import numpy as np

from trainer.config import UserError
from trainer.data.names import few
from trainer.data.splits import pieces, split_infos

PREFIX = "image_folder:"
SUFFIXES = (".jpg", ".jpeg", ".png")
# What is evaluated on where the user does not say: the first that is there.
EVALUATION = ("val", "validation", "test")
_THREADS = 16  # for file systems where listing a folder means asking another machine


@dataclasses.dataclass(frozen=True, eq=False)
class Files:
    """The files of a split, in their order.

    Attributes:
      folders: their folders, each of one class.
      folder_of: int32 [N], which of `folders` each file is in.
      names: bytes [N], without the folder; of fixed width, since a million Python strings take
        100 MB.
    """

    folders: Sequence[str]
    folder_of: np.ndarray
    names: np.ndarray

    def __len__(self) -> int:
        return len(self.names)

    def path(self, index: int) -> str:
        """Where a file is."""
        return os.path.join(self.folders[self.folder_of[index]], os.fsdecode(self.names[index]))


def classes(root: str, split: str) -> list[str]:
    """The names of the classes of a split, sorted: a label is a place in this list.

    Raises:
      UserError: there is no such folder, or none in it.
    """
    return sorted({name for part in _parts(split) for name in _classes(os.path.join(root, part))})


def list_files(root: str, split: str) -> Files:
    """The files of a split in TFDS's syntax: train, train[:90%], train+extra.

    Raises:
      UserError: there is no such split, or a class without a JPEG or PNG file.
    """
    listed = {part: _listed(os.path.join(root, part)) for part in _parts(split)}
    infos = split_infos({part: len(files) for part, files in listed.items()})
    chosen = pieces(infos, split, PREFIX + root)
    folders = [folder for part, _, _ in chosen for folder in listed[part].folders]
    first, folder_of, names = 0, [], []
    for part, start, stop in chosen:
        files = listed[part]
        folder_of.append(files.folder_of[start:stop] + first)
        names.append(files.names[start:stop])
        first += len(files.folders)
    return Files(folders, np.concatenate(folder_of), np.concatenate(names))


def evaluation_split(root: str) -> str:
    """The folder that is evaluated on where the user does not say.

    Raises:
      UserError: there is none.
    """
    there_are = _folders(root)
    found = [name for name in EVALUATION if name in there_are]
    if not found:
        raise UserError(
            f"{root} holds {few(there_are) or 'no folders'}, but none of "
            f"{', '.join(EVALUATION)}: give --eval_split, such as train[90%:] beside "
            "--train_split=train[:90%]."
        )
    return found[0]


def _parts(split: str) -> list[str]:
    """The folders that a split names: train and extra in train[:90%]+extra."""
    return list(dict.fromkeys(re.findall(r"(?:^|\+)\s*([^\s\[+]+)", split)))


def _classes(path: str) -> list[str]:
    found = _folders(path)
    if not found:
        raise UserError(
            f"{path} holds no folders: a class is a folder of its images, as in train/cat/1.jpg."
        )
    return found


def _folders(path: str) -> list[str]:
    try:
        with os.scandir(path) as entries:
            return sorted(entry.name for entry in entries if _is_folder(entry))
    except OSError as error:
        around = os.path.dirname(path)
        there_are = few(_folders(around)) if os.path.isdir(around) else ""
        raise UserError(
            f"{path} cannot be read: {error.strerror}.\n"
            + (f"{around} holds {there_are}." if there_are else f"--dataset={PREFIX}PATH names it.")
        ) from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """No error where a link leads to itself."""
    return entry.is_dir(follow_symlinks=False) or os.path.isdir(entry)


def _listed(path: str) -> Files:
    """All files of one folder of classes."""
    labels = _classes(path)
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as threads:
        found = list(threads.map(_images, (os.path.join(path, label) for label in labels)))
    for label, names in zip(labels, found, strict=True):
        if not names:
            raise UserError(
                f"{os.path.join(path, label)} holds no {', '.join(SUFFIXES)} file: remove it, or "
                "put its images there."
            )
    keys = [
        (os.fsencode(label) + b"/" + name, number, name)
        for number, (label, some) in enumerate(zip(labels, found, strict=True))
        for name in some
    ]
    hashes = [int.from_bytes(hashlib.blake2b(key, digest_size=8).digest()) for key, _, _ in keys]
    order = np.argsort(np.array(hashes, np.uint64), kind="stable")
    return Files(
        folders=[os.path.join(path, label) for label in labels],
        folder_of=np.array([number for _, number, _ in keys], np.int32)[order],
        names=np.array([name for _, _, name in keys], np.bytes_)[order],
    )


def _images(path: str) -> list[bytes]:
    """Names only: what cannot be read is found out when it is read."""
    try:
        with os.scandir(path) as entries:
            names = (entry.name for entry in entries if entry.name.lower().endswith(SUFFIXES))
            return sorted(map(os.fsencode, names))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
