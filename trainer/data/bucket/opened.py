"""Opens folders of data in buckets, each once in a process, and finds their local folders."""

import re
import threading
from collections.abc import Callable

from trainer.buckets.url import BucketUrl, parse
from trainer.data.bucket import placeholders, room
from trainer.data.bucket.folder import BucketFolder
from trainer.errors import ExitError, UserError
from trainer.run_dir.bucket_connection import connect, local_folder, patiently
from trainer.system.output import log

# Files with these names hold the examples of a TFDS set. The others describe it, and are small.
_SHARD = re.compile(r".*-\d{5,}-of-\d{5,}")


class _Opened:
    """Folders that this process has opened, by URL."""

    def __init__(self) -> None:
        self.cache_dir: str | None = None
        self.folders: dict[BucketUrl, BucketFolder] = {}
        self.lock = threading.Lock()


_OPENED = _Opened()


def keep_in(cache_dir: str | None) -> None:
    """Chooses the folder for the files of buckets: --cache_dir; None for the user's cache."""
    _OPENED.cache_dir = cache_dir


def is_remote(place: str | None) -> bool:
    """Returns whether `place` is the URL of a folder in a bucket."""
    return parse(place or "") is not None


def local_images(place: str) -> str:
    """Returns the local folder of an image folder, which may be the URL of a folder in a bucket.

    Raises:
      UserError: if the bucket cannot be used, or the folder does not exist in it.
      TryAgainError: if the bucket does not answer.
    """
    url = parse(place)
    if url is None:
        return place
    folder = _open(url, lambda name: False)
    if not folder.objects:
        raise UserError(f"{url} holds no files: correct --dataset, or copy the images there.")
    return str(folder.path)


def local_data_dir(data_dir: str | None, dataset: str) -> str | None:
    """Returns the local folder for the TFDS set `dataset` in `data_dir`, which may be a URL.

    Raises:
      UserError: if the bucket cannot be used.
      TryAgainError: if the bucket does not answer.
    """
    url = parse(data_dir or "")
    if url is None:
        return data_dir
    name = re.split("[/:]", dataset)[0]
    inner = BucketUrl(url.scheme, url.bucket, f"{url.folder}/{name}".strip("/"))
    return str(_open(inner, lambda name: not _SHARD.fullmatch(name)).path.parent)


def of(path: str) -> BucketFolder | None:
    """Returns the folder in a bucket that a local file belongs to; None if it belongs to none."""
    for folder in _OPENED.folders.values():
        if path.startswith(f"{folder.path}/"):
            return folder
    return None


def failure() -> ExitError | None:
    """Returns the error that ended the reading of a folder in this process; None if none did."""
    failures = (folder.failure for folder in _OPENED.folders.values())
    return next(filter(None, failures), None)


def _open(url: BucketUrl, at_once: Callable[[str], bool]) -> BucketFolder:
    """Lists the folder at `url`, and fetches the files whose paths `at_once` accepts."""
    with _OPENED.lock:
        if url not in _OPENED.folders:
            _OPENED.folders[url] = _listed(url, at_once)
        return _OPENED.folders[url]


def _listed(url: BucketUrl, at_once: Callable[[str], bool]) -> BucketFolder:
    objects = connect(url)
    above = local_folder(url, _OPENED.cache_dir, "data")
    path, parts = above / (url.folder.rpartition("/")[2] or url.bucket), above / "parts"
    stats = patiently(url, lambda: dict(objects.stats()))
    kept = {name: stats[name] for name in placeholders.paths(stats)}
    if left_out := sorted({*stats} - {*kept}):
        log(f"{len(left_out):,} objects of {url} are left out, such as {left_out[0]!r}: not paths")
    try:
        room.hold(above)
        path.mkdir(exist_ok=True)
        parts.mkdir(exist_ok=True)
        placeholders.update(path, parts, kept)
    except OSError as error:
        raise UserError(
            f"{above}, the local folder of {url}, cannot be used: {error.strerror} "
            f"({error.filename}).\nName another folder with --cache_dir."
        ) from error
    folder = BucketFolder(url, objects, path, parts, kept)
    folder.bring(str(path / name) for name in kept if at_once(name))
    return folder
