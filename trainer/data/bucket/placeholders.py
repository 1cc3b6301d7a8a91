"""Makes a local folder with a file, or a placeholder, for each object of a listing.

A placeholder stands for a file that was not fetched yet. It has the file's name and size, but it
takes no space on the disk, and its time of modification is 0, the beginning of 1970. A listing has
a folder of its own, in which no file changes after it was fetched. So if the bucket changes, a
process that began before goes on with the files of its listing.
"""

import contextlib
import hashlib
import os
import pathlib
import secrets
from collections.abc import Iterable, Mapping

from trainer.buckets.objects import Stat

Listing = Mapping[str, Stat]

_LONGEST_NAME = 255  # Bytes of a file's name, in most file systems.


def is_placeholder(path: str) -> bool:
    """Returns whether `path` is a placeholder; False if it does not exist."""
    try:
        return os.stat(path).st_mtime_ns == 0
    except OSError:
        return False


def usable(listing: Listing) -> tuple[Listing, list[str]]:
    """Returns the objects of a listing whose names can be paths, and the other names.

    An empty object whose name is that of a folder is left out without a word, because the consoles
    of both services make such objects.
    """
    folders = {name[:at] for name in listing for at, letter in enumerate(name) if letter == "/"}
    kept, others = {}, []
    for name, stat in listing.items():
        marker = stat.size == 0 and (name in folders or not name)
        if _is_path(name) and name not in folders:
            kept[name] = stat
        elif not marker:
            others.append(name)
    return kept, others


def _is_path(name: str) -> bool:
    parts = name.split("/")
    odd = any(part in ("", ".", "..") or "\0" in part for part in parts)
    return not odd and all(len(part.encode()) <= _LONGEST_NAME for part in parts)


def digest(listing: Listing) -> str:
    """Returns a text that differs for listings that differ in a name, size, time or tag."""
    found = hashlib.sha256()
    for name in sorted(listing):
        stat = listing[name]
        found.update(f"{name}\0{stat.size}\0{stat.modified}\0{stat.tag}\n".encode())
    return found.hexdigest()[:16]


def stamp(stat: Stat) -> int:
    """Returns the time of modification of the fetched file of an object, in nanoseconds.

    Its seconds are the object's time, and its microseconds a hash of the object's tag. So a file
    with this time and size has the content of the object, in whatever listing it was fetched.
    """
    tag = int.from_bytes(hashlib.sha256(stat.tag.encode()).digest()[:8])
    return max(stat.modified, 1) * 10**9 + tag % 10**6 * 1000


def fill(
    folder: pathlib.Path, parts: pathlib.Path, listing: Listing, older: Iterable[pathlib.Path]
) -> None:
    """Makes a file or placeholder for each object of a listing, unless it exists.

    Another process may do the same at the same time. An empty object whose name has no suffix
    stands for a folder, as consoles make it.

    Args:
      folder: the local folder of the listing.
      parts: another folder on the same disk, for files that are not complete.
      listing: the objects.
      older: folders of other listings of the same place. Their fetched files are shared, if the
        objects have not changed.

    Raises:
      OSError: if the folder cannot be written.
    """
    made, above = set[str](), [str(each) for each in older]
    for name, stat in listing.items():  # There may be a million, so pathlib would be too slow.
        path = f"{folder}/{name}"
        if os.path.lexists(path):
            continue
        parent, _, last = path.rpartition("/")
        if parent not in made:
            os.makedirs(parent, exist_ok=True)
            made.add(parent)
        if stat.size == 0 and "." not in last:
            os.makedirs(path, exist_ok=True)
        elif not any(_share(f"{each}/{name}", path, stat) for each in above):
            _create(path, parts, stat)


def _share(source: str, path: str, stat: Stat) -> bool:
    """Makes `path` another name of the file `source`, if that has the content of the object."""
    try:
        found = os.stat(source)
        if (found.st_size, found.st_mtime_ns) != (stat.size, stamp(stat)):
            return False
        os.link(source, path)
    except FileExistsError:
        return True
    except OSError:  # The file is missing, or the file system has no hard links.
        return False
    return True


def _create(path: str, parts: pathlib.Path, stat: Stat) -> None:
    """Makes a placeholder, unless `path` exists; it appears with its time and size."""
    part = parts / secrets.token_hex(8)
    with open(part, "xb") as file:
        os.truncate(file.fileno(), stat.size)
    # An empty file has nothing to fetch.
    modified = 0 if stat.size else stamp(stat)
    os.utime(part, ns=(modified, modified))
    try:
        os.link(part, path)
    except FileExistsError:  # Another process has made it.
        pass
    except OSError:  # The file system has no hard links.
        part.rename(path)
    with contextlib.suppress(FileNotFoundError):
        part.unlink()
