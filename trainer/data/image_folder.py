"""Lists the files of an image folder, PATH/<split>/<class>/<name>.jpg, in a fixed order.

Files are sorted by a hash of the class's name and the path below the class's folder. So a slice
such as train[:90%] has about the same share of each class, and the same files on every machine.
This module does not import TensorFlow, because `plan` counts examples with it.
"""

import collections
import concurrent.futures
import dataclasses
import functools
import hashlib
import os
import re
from collections.abc import Mapping, Sequence

import numpy as np

from trainer.data import class_folder
from trainer.data.class_folder import is_hidden
from trainer.data.class_names import counted, few, printable
from trainer.data.tfds import splits
from trainer.data.tfds.splits import pieces, split_infos
from trainer.errors import UserError

PREFIX = "image_folder:"
# Reason why a run that an older version of this program began may have had other files.
WHAT_COUNTS = (
    "This version also counts WebP, BMP and GIF files and pictures in folders below a class's "
    "folder; it does not count hidden files."
)
_THREADS = 16  # Listing folders of a network file system is mostly waiting.


@dataclasses.dataclass(frozen=True, eq=False)
class Files:
    """Files of a split, in a fixed order.

    Attributes:
      folders: paths of the class folders.
      folder_of: int32 [N], index into `folders` of each file's class folder.
      names: bytes [N], paths below the class folders; a million strings would take 100 MB.
      left_out: number of files and folders left out, by kind.
    """

    folders: Sequence[str]
    folder_of: np.ndarray
    names: np.ndarray
    left_out: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.names)

    def path(self, index: int) -> str:
        """Returns the path of the file at `index`."""
        return os.path.join(self.folders[self.folder_of[index]], os.fsdecode(self.names[index]))


def classes(root: str, split: str) -> list[str]:
    """Returns the sorted class names of a split; a label is an index into this list.

    Raises:
      UserError: if a folder of the split does not exist, or has no class folders.
    """
    parts = (os.path.join(root, part) for part in _parts(split))
    return sorted({name for part in parts for name in _classes(part)[0]})


def list_files(root: str, split: str) -> Files:
    """Lists the files of a split in TFDS's syntax: train, train[:90%], train+extra.

    Raises:
      UserError: if the split does not exist, or a class has no pictures.
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
    left_out: collections.Counter[str] = collections.Counter()
    for files in listed.values():
        left_out.update(files.left_out)
    return Files(folders, np.concatenate(folder_of), np.concatenate(names), left_out)


def count_shared(root: str, first: str, second: str) -> int:
    """Returns the number of files that are in both splits.

    Raises:
      UserError: if a split does not exist.
    """
    parts = {*_parts(first), *_parts(second)}
    if len(parts) == len(_parts(first)) + len(_parts(second)):  # No folder is in both.
        return 0
    infos = split_infos({part: len(_listed(os.path.join(root, part))) for part in parts})
    return splits.count_shared(infos, first, second, PREFIX + root)


def evaluation_split(root: str) -> str:
    """Returns the first of the folders val, validation and test that exists.

    Raises:
      UserError: if none of the three folders exists.
    """
    existing = _folders(root)
    for name in ("val", "validation", "test"):
        if name in existing:
            return name
    raise UserError(
        f"{root} has no folder named val, validation or test; it holds "
        f"{few(existing) or 'no folders'}.\nSet --eval_split, for example "
        "--train_split=train[:90%] --eval_split=train[90%:]."
    )


def _parts(split: str) -> list[str]:
    """Returns the folders of a split, such as train and extra for train[:90%]+extra."""
    return list(dict.fromkeys(re.findall(r"(?:^|\+)\s*([^\s\[+]+)", split)))


def _classes(path: str) -> tuple[list[str], collections.Counter[str]]:
    """Returns the sorted class names in a folder, and the number of its other entries by kind."""
    folders, left_out = _folders(path), collections.Counter[str]()
    around = class_folder.enclosing(path)
    classes = []
    for name in folders:
        if is_hidden(name):
            left_out[class_folder.HIDDEN] += 1
        elif class_folder.identity(os.path.join(path, name)) in around:
            left_out[class_folder.REPEATED] += 1
        else:
            classes.append(name)
    if not classes:
        raise UserError(
            f"{path} has no class folders: put the images of each class in a folder of their own, "
            "as in train/cat/1.jpg."
        )
    with os.scandir(path) as entries:
        for entry in entries:
            if class_folder.is_broken_link(entry) and not is_hidden(entry.name):
                # Without this error, a disk that is not mounted would silently remove a class.
                raise UserError(
                    f"{printable(entry.path)} is a link that leads nowhere: restore its target, "
                    "or remove the link."
                )
            if entry.name not in folders:
                hidden = is_hidden(entry.name)
                left_out[class_folder.HIDDEN if hidden else "outside of class folders"] += 1
    return classes, left_out


def _folders(path: str) -> list[str]:
    try:
        with os.scandir(path) as entries:
            return sorted(entry.name for entry in entries if _is_folder(entry))
    except OSError as error:
        parent = os.path.dirname(path)
        existing = few(_folders(parent)) if os.path.isdir(parent) else ""
        remedy = f"Correct --dataset={PREFIX}PATH."
        if existing:
            remedy = f"Name a folder that exists in {parent}: {existing}."
        raise UserError(f"{path} cannot be read: {error.strerror}.\n{remedy}") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    # DirEntry.is_dir alone would raise an error for a link that leads to itself.
    return entry.is_dir(follow_symlinks=False) or os.path.isdir(entry)


def _listed(path: str) -> Files:
    """Lists the files of all classes in the folder `path`."""
    classes, left_out = _classes(path)
    folders = [os.path.join(path, name) for name in classes]
    list_pictures = functools.partial(
        class_folder.list_pictures, around=class_folder.enclosing(path)
    )
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as threads:
        listings = list(threads.map(list_pictures, folders))
    path_of: dict[class_folder.Identity, str] = {}
    for folder, (names, others, listed) in zip(folders, listings, strict=True):
        if not names:
            raise UserError(
                f"{printable(folder)} has no {', '.join(class_folder.SUFFIXES)} file (it holds "
                f"{counted(others) or 'nothing'}).\n"
                "Remove this folder, or put the images of its class in it."
            )
        left_out.update(others)
        for identity, place in listed.items():
            if (other := path_of.setdefault(identity, place)) != place:
                raise UserError(
                    f"{printable(other)} and {printable(place)} are the same folder, in two "
                    "classes: its pictures would have two labels.\nRemove one of the links."
                )
    names_of = [names for names, _, _ in listings]
    hashes = [
        int.from_bytes(hashlib.blake2b(os.fsencode(label) + b"/" + name, digest_size=8).digest())
        for label, names in zip(classes, names_of, strict=True)
        for name in names
    ]
    order = np.argsort(np.array(hashes, np.uint64), kind="stable")
    folder_of = np.repeat(np.arange(len(folders), dtype=np.int32), list(map(len, names_of)))
    all_names = np.array([name for names in names_of for name in names], np.bytes_)
    return Files(folders, folder_of[order], all_names[order], left_out)
