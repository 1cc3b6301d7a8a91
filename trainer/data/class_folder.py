"""Lists the pictures in one class's folder and in the folders below it; counts everything else.

A regular file with a suffix of `SUFFIXES` is a picture; decoding checks its content later. Links
are followed. A broken link with one of these suffixes counts as a picture too, and reading it later
reports an error. Without the error, an unmounted disk would silently make the training set smaller.
"""

import collections
import os
from collections.abc import Mapping

from trainer.data.class_names import counted, printable
from trainer.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")
HIDDEN = "hidden"
REPEATED = "folder already listed"

Identity = tuple[int, int]  # device and inode


def is_hidden(name: str) -> bool:
    """Returns whether a name starts with a dot, or is used by a file manager for its own files."""
    return name.startswith(".") or name.lower() in {"__macosx", "thumbs.db", "desktop.ini"}


def identity(path: str) -> Identity:
    """Returns the identity of a file or folder, which is the same for all paths to it.

    Raises:
        UserError: if the path does not exist, is too long or cannot be read.
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
    """Lists the pictures of a class; a folder to which several links lead is listed once.

    Args:
        path: the class's folder.
        around: identities of the folders above `path`; links to these folders are not followed.

    Returns:
        (pictures, left out, listed): the sorted paths of the pictures, relative to `path`; the
        number of entries that are left out, by kind; the path of each listed folder, by identity.

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
            elif leads_to_folder(entry):
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


def holds_picture(path: str) -> bool:
    """Returns whether a folder directly holds a picture that is not hidden.

    Raises:
        UserError: if the folder cannot be listed.
    """
    return any(
        not is_hidden(entry.name) and not leads_to_folder(entry) and _kind(entry) is None
        for entry in _entries(path)
    )


def no_pictures(path: str, left_out: Mapping[str, int], remedy: str) -> UserError:
    """Returns the error for a folder that has no pictures.

    Args:
        path: the folder.
        left_out: number of entries that are left out, by kind.
        remedy: second line of the message.
    """
    return UserError(
        f"{printable(path)} has no {', '.join(SUFFIXES)} file (it holds "
        f"{counted(left_out) or 'nothing'}).\n{remedy}"
    )


def is_broken_link(entry: os.DirEntry[str]) -> bool:
    """Returns whether an entry is a link to a missing file, or to itself."""
    return entry.is_symlink() and not os.path.exists(entry)


def _entries(path: str) -> list[os.DirEntry[str]]:
    """Returns a folder's entries, sorted by name so that every machine follows the same links."""
    try:
        with os.scandir(path) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"{printable(path)} cannot be read: {error.strerror}.") from error


def leads_to_folder(entry: os.DirEntry[str]) -> bool:
    """Returns whether an entry is a folder, or a link to one."""
    # DirEntry.is_dir alone would raise an error for a link that leads to itself.
    return entry.is_dir(follow_symlinks=False) or (entry.is_symlink() and os.path.isdir(entry))


def _kind(entry: os.DirEntry[str]) -> str | None:
    """Returns the kind under which a file is left out, or None if the file is a picture.

    Only links need a system call, because the folder's listing has the type of all other entries.
    """
    suffix = os.path.splitext(entry.name)[1].lower()
    if suffix in SUFFIXES:
        is_file = entry.is_file(follow_symlinks=False)
        if is_file or (entry.is_symlink() and (os.path.isfile(entry) or not os.path.exists(entry))):
            return None
        return "not a regular file"
    if is_broken_link(entry):
        return "broken link"
    # The 9 characters include the dot.
    return (suffix or "no suffix") if len(suffix) <= 9 else "other"
