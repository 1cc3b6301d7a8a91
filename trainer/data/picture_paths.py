"""Finds the pictures that a command line names, as files or as folders with all their subfolders.

In a folder, the module `class_folder` decides which files are pictures. Importing TensorFlow takes
seconds. This module does not import it, so that a mistake in a path is reported at once.
"""

import collections
import os
from collections.abc import Sequence

from trainer.data import class_folder
from trainer.data.class_names import counted, printable
from trainer.errors import UserError

_REPEATED = "named twice"


def find(given: Sequence[str]) -> tuple[list[bytes], str]:
    """Returns the paths of the pictures, and a line about the files that are left out.

    The paths are bytes, because some names are not valid UTF-8. The paths keep the order of
    `given`, and the pictures of each folder are sorted. A file that `given` names directly counts
    as a picture, whatever its suffix is.

    Returns:
        The distinct paths, and a line. If no file is left out, the line is "". Otherwise, an
        example of the line is "240 pictures; 12 files left out (.txt 8, hidden 4)".

    Raises:
        UserError: if a path does not exist, or a folder cannot be read or has no pictures.
    """
    paths: list[bytes] = []
    left_out: collections.Counter[str] = collections.Counter()
    for path in given:
        if os.path.isdir(path):
            names, others = _below(path)
            paths += [os.path.join(os.fsencode(path), name) for name in names]
            left_out.update(others)
        else:
            _check_exists(path)
            paths.append(os.fsencode(path))
    distinct = list(dict.fromkeys(paths))
    if repeated := len(paths) - len(distinct):
        left_out[_REPEATED] = repeated
    if not left_out:
        return distinct, ""
    total = sum(left_out.values())
    files = f"{total:,} file{'' if total == 1 else 's'} left out ({counted(left_out)})"
    return distinct, f"{len(distinct):,} picture{'' if len(distinct) == 1 else 's'}; {files}"


def _check_exists(path: str) -> None:
    try:
        os.stat(path)
    except OSError as error:
        raise UserError(
            f"{printable(path)} cannot be read: {error.strerror}.\n"
            "Name pictures that exist, or folders of pictures."
        ) from error


def _below(path: str) -> tuple[list[bytes], collections.Counter[str]]:
    """Returns the pictures in and below a folder, and the number of other entries by kind."""
    names, left_out, _ = class_folder.list_pictures(path, class_folder.enclosing(path))
    if not names:
        remedy = "Name a folder with pictures, or the pictures themselves."
        raise class_folder.no_pictures(path, left_out, remedy)
    return names, left_out
