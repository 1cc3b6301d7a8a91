"""Opens folders of data in buckets, each once in a process, and finds their local folders."""

import contextlib
import pathlib
import re
import threading
from collections.abc import Callable, Iterator

from trainer.buckets.url import BucketUrl, parse
from trainer.data.bucket import disk_space, placeholders
from trainer.data.bucket.folder import BucketFolder
from trainer.data.bucket.listed_objects import ListedObjects
from trainer.data.bucket.placeholders import Listing
from trainer.errors import ExitError, UserError
from trainer.run_dir.bucket_connection import connect, local_folder, patiently
from trainer.system.output import log

# Names in the local folder of a listing: of the files, and of those that are not complete.
_FILES, _PARTS = "files", ".parts"
# Suffixes of the files that describe a TFDS set, which are needed at once.
_DESCRIPTIONS = (".json", ".txt")


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


def forget() -> None:
    """Forgets the folders that are open, so that they are listed anew."""
    _OPENED.folders = {}


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
    if not folder.source.listing:
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
    import tensorflow_datasets as tfds  # The import takes 0.4 s.

    try:
        name = tfds.core.naming.parse_builder_name_kwargs(dataset)[0].name
    except ValueError as error:
        raise UserError(f"--dataset={dataset} is not the name of a TFDS set: {error}") from error
    inner = BucketUrl(url.scheme, url.bucket, f"{url.folder}/{name}".strip("/"))
    return str(_open(inner, lambda name: name.endswith(_DESCRIPTIONS)).path.parent)


def of(path: str) -> BucketFolder | None:
    """Returns the folder in a bucket that a local file belongs to; None if it belongs to none."""
    for folder in _OPENED.folders.values():
        if path.startswith(f"{folder.path}/"):
            return folder
    return None


def shown(path: str) -> str:
    """Returns the URL of a file that is fetched from a bucket, or else its path, for messages."""
    folder = of(path)
    return f"{folder.url}/{folder.name(path)}" if folder else path


def failure() -> ExitError | None:
    """Returns the error that ended the reading of a folder in this process; None if none did."""
    failures = (folder.source.failure for folder in _OPENED.folders.values())
    return next(filter(None, failures), None)


@contextlib.contextmanager
def showing_urls() -> Iterator[None]:
    """Replaces local folders by their URLs in the messages of user errors."""
    try:
        yield
    except UserError as error:
        message = str(error)
        for folder in _OPENED.folders.values():
            above = str(folder.url).rpartition("/")[0]
            message = message.replace(str(folder.path), str(folder.url))
            message = message.replace(str(folder.path.parent), above)
        if message == str(error):
            raise
        raise type(error)(message) from error


def _open(url: BucketUrl, at_once: Callable[[str], bool]) -> BucketFolder:
    """Lists the folder at `url`, and fetches the files whose paths `at_once` accepts."""
    with _OPENED.lock:
        if url not in _OPENED.folders:
            _OPENED.folders[url] = _listed(url, at_once)
        return _OPENED.folders[url]


def _listed(url: BucketUrl, at_once: Callable[[str], bool]) -> BucketFolder:
    objects = connect(url)
    log(f"listing {url}")
    listing, odd = placeholders.usable(patiently(url, lambda: dict(objects.stats())))
    if odd:
        others = f"{len(odd):,} objects" if len(odd) > 1 else "1 object"
        log(f"{others} of {url} cannot be files, such as {sorted(odd)[0]!r}, and are left out")
    place = local_folder(url, _OPENED.cache_dir, "data")
    above = place.with_name(f"{place.name}-{placeholders.digest(listing)}")
    path = above / _FILES / (url.folder.rpartition("/")[2] or url.bucket)
    try:
        disk_space.hold(above)
        path.mkdir(parents=True, exist_ok=True)
        (above / _PARTS).mkdir(exist_ok=True)
        _fill(above, path, listing)
    except OSError as error:
        raise UserError(
            f"{above}, the local folder of {url}, cannot be used: {error.strerror} "
            f"({error.filename or above}).\nName another folder with --cache_dir."
        ) from error
    folder = BucketFolder(ListedObjects(url, objects, listing), path, above / _PARTS)
    folder.bring(str(path / name) for name in listing if at_once(name))
    return folder


def _fill(above: pathlib.Path, path: pathlib.Path, listing: Listing) -> None:
    """Makes the files and placeholders of a listing, and removes older listings of the place."""
    name = re.compile(re.escape(above.name[:-16]) + "[0-9a-f]{16}")
    older = [each for each in above.parent.iterdir() if name.fullmatch(each.name) and each != above]
    files = [each / path.relative_to(above) for each in older]
    placeholders.fill(path, above / _PARTS, listing, files)
    for each in older:
        disk_space.remove_if_unused(each)
