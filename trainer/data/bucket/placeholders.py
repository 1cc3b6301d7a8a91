"""Makes a local folder with a file, or a placeholder, for each object of a folder in a bucket.

A placeholder stands for a file that was not fetched yet. It has the file's name and size, but it
takes no space on the disk, and its time of modification is 0, the begin of 1970. A fetched file has
the time of its object, so that a later listing shows whether the object has changed.
"""

import contextlib
import os
import pathlib
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping

from trainer.buckets.objects import Stat

_LONGEST_FETCH = 86_400  # Seconds after which a file that is not complete was left.


def is_placeholder(path: str) -> bool:
    """Returns whether `path` is a placeholder; False if it does not exist."""
    try:
        return os.stat(path).st_mtime_ns == 0
    except OSError:
        return False


def paths(names: Iterable[str]) -> Iterator[str]:
    """Yields the names that can be paths of files below a folder.

    A name such as a//b or ../a cannot be one, nor can the name a if there is an object a/b.
    """
    names = list(names)
    folders = {name[:at] for name in names for at in _slashes(name)}
    for name in names:
        parts = name.split("/")
        usable = not any(part in ("", ".", "..") or "\0" in part for part in parts)
        if usable and name not in folders:
            yield name


def _slashes(name: str) -> list[int]:
    return [at for at, letter in enumerate(name) if letter == "/"]


def update(folder: pathlib.Path, parts: pathlib.Path, stats: Mapping[str, Stat]) -> None:
    """Removes the files in `folder` whose objects changed, and makes the missing placeholders.

    Other processes may read the folder, or call this function for it, at the same time.

    Args:
      folder: the local folder.
      parts: another folder on the same disk, for files that are not complete.
      stats: size and time of each object, by its path in the folder.

    Raises:
      OSError: if the folder cannot be written.
    """
    _remove_old(parts)
    known = set()
    for path in _files(folder):
        name = str(path.relative_to(folder))
        if _is_current(path, stats.get(name)):
            known.add(name)
        else:
            path.unlink(missing_ok=True)
    made = {folder}
    for name, stat in stats.items():
        if name not in known:
            path = folder / name
            if path.parent not in made:
                path.parent.mkdir(parents=True, exist_ok=True)
                made.add(path.parent)
            _create(path, parts, stat)


def _remove_old(parts: pathlib.Path) -> None:
    """Removes the incomplete files that killed processes left."""
    for path in parts.iterdir():
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_ctime > _LONGEST_FETCH:
                path.unlink()


def _files(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    for parent, _, names in os.walk(folder):
        for name in names:
            yield pathlib.Path(parent, name)


def _is_current(path: pathlib.Path, stat: Stat | None) -> bool:
    """Returns whether a file is a placeholder for, or the content of, the object with `stat`."""
    with contextlib.suppress(OSError):
        found = path.stat()
        return stat is not None and (
            found.st_size == stat.size and found.st_mtime_ns in (0, stat.modified * 10**9)
        )
    return False


def _create(path: pathlib.Path, parts: pathlib.Path, stat: Stat) -> None:
    """Makes a placeholder, unless `path` exists; it appears with its time and size."""
    part = parts / secrets.token_hex(8)
    with open(part, "xb") as file:
        os.truncate(file.fileno(), stat.size)
    # An empty file has nothing to fetch.
    modified = 0 if stat.size else stat.modified
    os.utime(part, (modified, modified))
    with contextlib.suppress(FileExistsError):  # Another process has made it.
        os.link(part, path)
    part.unlink()
