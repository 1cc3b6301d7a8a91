"""Lists the files PATH/<split>/<class>/<name>.jpg of an image folder, in a fixed order.

The folders in PATH may also be classes, as in PATH/<class>/<name>.jpg. A hash then divides the
files into the splits train and val. `folder_layout` decides whether the folders are splits or
classes. This module does not import TensorFlow, because the import would delay the command `plan`,
which counts examples, by seconds.
"""

import concurrent.futures
import functools
import os

import numpy as np

from trainer.data import class_folder, image_files
from trainer.data.class_names import printable
from trainer.data.folder_layout import PREFIX, class_folders, holds_classes
from trainer.data.image_files import Files, part_names, path_hash
from trainer.data.tfds import splits
from trainer.errors import UserError

# Text of a message: why an older version of this program may have found other files in the folder.
WHAT_COUNTS = (
    "This version also counts WebP, BMP and GIF files and pictures in folders below a class's "
    "folder; it does not count hidden files."
)
_THREADS = 16  # On a network file system, a thread that lists a folder waits most of the time.


def classes(root: str, split: str) -> list[str]:
    """Returns the sorted class names of a split; a label is an index into this list.

    Raises:
      UserError: if a folder of the split does not exist, or has no class folders.
    """
    parts = part_names(split)
    if holds_classes(root, parts):
        return class_folders(root)[0]
    paths = (os.path.join(root, part) for part in parts)
    return sorted({name for path in paths for name in class_folders(path)[0]})


def list_files(root: str, split: str) -> Files:
    """Lists the files of a split in TFDS's syntax, such as train, train[:90%] or train+extra.

    Raises:
      UserError: if the split does not exist, or a class has no pictures.
    """
    return image_files.select(_parts(root, part_names(split)), split, PREFIX + root)


def count_shared(root: str, first: str, second: str) -> int:
    """Returns the number of files that are in both splits.

    Raises:
      UserError: if the splits have a name in common, and one of the splits does not exist.
    """
    names = part_names(first), part_names(second)
    if not {*names[0]} & {*names[1]}:  # The two splits do not have a folder in common.
        return 0
    parts = _parts(root, list(dict.fromkeys([*names[0], *names[1]])))
    infos = splits.split_infos({name: len(files) for name, files in parts.items()})
    return splits.count_shared(infos, first, second, PREFIX + root)


def note(root: str, split: str) -> str:
    """Returns a line that says how a hash made the splits; "" if the splits are folders.

    Raises:
      UserError: if the folders could be either splits or classes, or a class has no pictures.
    """
    names = part_names(split)
    if not holds_classes(root, names):
        return ""
    return f"{root} has no folders train and val: {image_files.division(_parts(root, names))}"


def _parts(root: str, names: list[str]) -> dict[str, Files]:
    """Returns the files of each split in `names`, or of train and val if folders are classes."""
    if holds_classes(root, names):
        return image_files.divided(*_listed(root))
    return {name: _listed(os.path.join(root, name))[0] for name in names}


def _listed(path: str) -> tuple[Files, np.ndarray]:
    """Returns the files of all classes in the folder `path`, sorted by hash, and their hashes."""
    classes, left_out = class_folders(path)
    folders = [os.path.join(path, name) for name in classes]
    list_pictures = functools.partial(
        class_folder.list_pictures, around=class_folder.enclosing(path)
    )
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as threads:
        listings = list(threads.map(list_pictures, folders))
    path_of: dict[class_folder.Identity, str] = {}
    for folder, (names, others, listed) in zip(folders, listings, strict=True):
        if not names:
            remedy = "Remove this folder, or put the images of its class in it."
            raise class_folder.no_pictures(folder, others, remedy)
        left_out.update(others)
        for identity, place in listed.items():
            if (other := path_of.setdefault(identity, place)) != place:
                raise UserError(
                    f"{printable(other)} and {printable(place)} are the same folder, in two "
                    "classes: its pictures would have two labels.\nRemove one of the links."
                )
    names_of = [names for names, _, _ in listings]
    hashes = np.array(
        [
            path_hash(os.fsencode(label) + b"/" + name)
            for label, names in zip(classes, names_of, strict=True)
            for name in names
        ],
        np.uint64,
    )
    order = np.argsort(hashes, kind="stable")
    folder_of = np.repeat(np.arange(len(folders), dtype=np.int32), list(map(len, names_of)))[order]
    all_names = np.array([name for names in names_of for name in names], np.bytes_)[order]
    files = Files(folders, folder_of, all_names, classes, folder_of, left_out)
    return files, hashes[order]
