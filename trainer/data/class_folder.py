"""Lists the pictures in one class's folder and the folders below it, and counts everything else.

A file with a suffix of `SUFFIXES` is a picture; decoding checks its content. Links are followed.
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
# Files that file managers write beside pictures, without a dot at the start of the name.
_HIDDEN_NAMES = {"__macosx", "thumbs.db", "desktop.ini"}
_LONGEST_SUFFIX = 9  # Characters with the dot; files with a longer suffix count as "other".

Identity = tuple[int, int]


def is_hidden(name: str) -> bool:
    """Returns whether the name starts with a dot, or is that of a file manager's own file."""
    return name.startswith(".") or name.lower() in _HIDDEN_NAMES


def identity(path: str) -> Identity:
    """Returns the device and inode of a path, which are equal for all paths to the same file.

    Raises:
        UserError: if the path is too long, or does not exist.
    """
    try:
        status = os.stat(path)
    except OSError as error:
        raise UserError(f"{printable(path)} cannot be read: {error.strerror}.") from error
    return status.st_dev, status.st_ino


def enclosing(path: str) -> set[Identity]:
    """Returns the identities of a folder and of all folders above it."""
    path = os.path.realpath(path)
    identities = {identity(path)}
    while (parent := os.path.dirname(path)) != path:
        path = parent
        identities.add(identity(path))
    return identities


def list_pictures(
    path: str, around: set[Identity]
) -> tuple[list[bytes], collections.Counter[str], dict[Identity, str]]:
    """Lists the pictures of a class.

    A regular file with a suffix of `SUFFIXES` is a picture. So is a broken link with such a suffix,
    which reading will report: a disk that is not mounted must not make the training set smaller
    silently. If several links lead to one folder, the folder is listed once.

    Args:
        path: the class's folder.
        around: identities of folders that a link must not lead back to.

    Returns:
        The sorted paths of the pictures, relative to `path`; the number of entries left out, by
        kind; the paths of the listed folders, by identity.

    Raises:
        UserError: if a folder cannot be listed.
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
    """Returns whether an entry is a link to nothing, or to itself."""
    return entry.is_symlink() and not os.path.exists(entry)


def _entries(path: str) -> list[os.DirEntry[str]]:
    """Returns the entries by name, so the same one of several links to a folder is always used."""
    try:
        with os.scandir(path) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"{printable(path)} cannot be read: {error.strerror}.") from error


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    # DirEntry.is_dir alone would raise an error for a link that leads to itself.
    return entry.is_dir(follow_symlinks=False) or (entry.is_symlink() and os.path.isdir(entry))


def _kind(entry: os.DirEntry[str]) -> str | None:
    """Returns the kind under which a file is left out, or None if the file is a picture.

    Only links cost a system call, because the listing has the type of all other entries.
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
