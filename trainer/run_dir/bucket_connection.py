"""Connects to the bucket of a run, and waits for a bucket that does not answer."""

import concurrent.futures
import contextlib
import hashlib
import os
import pathlib
import re
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from trainer.buckets import objects as buckets
from trainer.buckets.objects import Objects, RefusedError, UnavailableError
from trainer.buckets.url import BucketUrl
from trainer.errors import TryAgainError, UserError
from trainer.system.output import log

# Seconds that the start of a command waits for a bucket that does not answer.
_PATIENCE = 180.0
_AT_ONCE = 16  # Requests that `at_once` sends at a time.
_Answer = TypeVar("_Answer")
_Item = TypeVar("_Item")


def local_folder(url: BucketUrl, cache_dir: str | None, kind: str = "runs") -> pathlib.Path:
    """Returns the local directory of the run at `url`, in `cache_dir` or the user's cache.

    For data in a bucket, `kind` is "data".
    """
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    root = pathlib.Path(cache_dir or pathlib.Path(cache, "crescendo")).expanduser()
    readable = re.sub(r"[^A-Za-z0-9._]+", "-", str(url))[:100]
    digest = hashlib.sha256(str(url).encode()).hexdigest()[:8]  # Two URLs may look the same.
    return root / kind / f"{readable}-{digest}"


def connect(url: BucketUrl) -> Objects:
    """Returns the objects of the folder `url`; sends no request yet.

    Raises:
      UserError: if obstore is not installed, or cannot use the credentials or settings.
    """
    from trainer.buckets import client  # Only runs in buckets import obstore.

    try:
        return client.connect(url)
    except RefusedError as error:
        raise UserError(buckets.refusal(url, error)) from error


@contextlib.contextmanager
def local_disk(path: pathlib.Path) -> Iterator[None]:
    """Translates errors of the local disk while the files of a run are written to `path`.

    Raises:
      UserError: if the disk is full, or the folder cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{path}, the local folder of the run, cannot be used: {error.strerror} "
            f"({error.filename or path}).\nName another folder with --cache_dir."
        ) from error


def patiently(url: BucketUrl, request: Callable[[], _Answer]) -> _Answer:
    """Returns what `request` returns; repeats it while the bucket does not answer.

    Raises:
      TryAgainError: if the bucket does not answer for some minutes.
      UserError: if the bucket refuses the request.
    """
    end = time.monotonic() + _PATIENCE
    told = False
    while True:
        begin = time.monotonic()
        try:
            return request()
        except RefusedError as error:
            raise UserError(buckets.refusal(url, error)) from error
        except UnavailableError as error:
            if time.monotonic() - begin > _PATIENCE:  # A long download was interrupted.
                end = time.monotonic() + _PATIENCE
            if time.monotonic() > end:
                raise TryAgainError(
                    f"{url} cannot be reached: {error}.\n"
                    "Check the network, and give the same command again."
                ) from error
            if not told:
                log(f"{url} cannot be reached: {error}; trying for {_PATIENCE:g} s")
            told = True
            time.sleep(min(2, _PATIENCE / 10))


def at_once(call: Callable[[_Item], _Answer], items: Iterable[_Item]) -> list[_Answer]:
    """Calls `call` for each of `items` in several threads; returns the answers in their order."""
    with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(call, items))
