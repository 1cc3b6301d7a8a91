"""The pictures in one class's folder and in the folders below it, and what else lies there.

A file is a picture by its suffix; what it holds is decided when it is read. Links are followed.
"""

import collections
import os

from trainer.data.class_names import printable
from trainer.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")
HIDDEN = "hidden"
NOT_A_FILE = "not a regular file"
REPEATED = "folder already listed"
_BROKEN_LINK = "broken link"
_NO_SUFFIX, _OTHER_SUFFIX = "no suffix", "other"
# File managers write these beside pictures, and their names do not start with a dot.
_HIDDEN_NAMES = {"__macosx", "thumbs.db", "desktop.ini"}
_LONGEST_SUFFIX = 9  # characters; what is longer is a part of a name

Identity = tuple[int, int]


def is_hidden(name: str) -> bool:
    """Whether a file manager, an editor or an operating system keeps this file for itself."""
    return name.startswith(".") or name.lower() in _HIDDEN_NAMES


def identity(path: str) -> Identity:
    """The device and inode of what a path leads to, which two names may share.

    Raises:
        UserError: the path is too long, or what it leads to has gone.
    """
    try:
        status = os.stat(path)
    except OSError as error:
        raise UserError(f"{printable(path)} cannot be read: {error.strerror}.") from error
    return status.st_dev, status.st_ino


def enclosing(path: str) -> set[Identity]:
    """The identities of a folder and of all folders that it is in."""
    path = os.path.realpath(path)
    found = {identity(path)}
    while (parent := os.path.dirname(path)) != path:
        path = parent
        found.add(identity(path))
    return found


def list_pictures(
    path: str, around: set[Identity]
) -> tuple[list[bytes], collections.Counter[str], dict[Identity, str]]:
    """The pictures of a class, sorted, by their paths below `path`; what is left out, counted; the
    paths of the folders that were listed.

    A regular file of one of `SUFFIXES` is a picture. So is a link of such a name that leads
    nowhere: reading it then fails by name, since a disk that is not mounted must not make a
    training set smaller in silence. Each folder is listed once, however many links lead to it.

    Args:
        path: the class's folder.
        around: identities of folders that a link must not lead back to.

    Raises:
        UserError: a folder cannot be listed.
    """
    pictures: list[bytes] = []
    left_out: collections.Counter[str] = collections.Counter()
    listed = {identity(path): path}
    below = [""]
    while below:
        prefix = below.pop()
        for entry in _entries(os.path.join(path, prefix).rstrip("/")):
            if is_hidden(entry.name):
                left_out[HIDDEN] += 1
            elif _leads_to_folder(entry):
                folder = identity(entry.path)
                if folder in listed or folder in around:
                    left_out[REPEATED] += 1
                else:
                    listed[folder] = entry.path
                    below.append(f"{prefix}{entry.name}/")
            elif (kind := _kind(entry)) is None:
                pictures.append(os.fsencode(prefix + entry.name))
            else:
                left_out[kind] += 1
    return sorted(pictures), left_out, listed


def is_broken_link(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a link that leads nowhere, or to itself."""
    return entry.is_symlink() and not os.path.exists(entry)


def _entries(path: str) -> list[os.DirEntry[str]]:
    """In an order of their own, since links may make the first one to be listed count."""
    try:
        with os.scandir(path) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"{printable(path)} cannot be read: {error.strerror}.") from error


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    """No error if a link leads to itself."""
    return entry.is_dir(follow_symlinks=False) or (entry.is_symlink() and os.path.isdir(entry))


def _kind(entry: os.DirEntry[str]) -> str | None:
    """Returns what an entry that is not a folder is left out as; None: it is a picture.

    Only links cost a call of the system: the listing tells what everything else is.
    """
    suffix = os.path.splitext(entry.name)[1].lower()
    if suffix in SUFFIXES:
        is_file = entry.is_file(follow_symlinks=False)
        if is_file or (entry.is_symlink() and (os.path.isfile(entry) or not os.path.exists(entry))):
            return None
        return NOT_A_FILE
    if is_broken_link(entry):
        return _BROKEN_LINK
    if not suffix:
        return _NO_SUFFIX
    return suffix if len(suffix) <= _LONGEST_SUFFIX else _OTHER_SUFFIX
