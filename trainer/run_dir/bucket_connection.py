"""Connects to the bucket of a run, and waits for a bucket that does not answer."""

import concurrent.futures
import contextlib
import hashlib
import os
import pathlib
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from trainer.buckets import objects as buckets
from trainer.buckets.objects import Objects, RefusedError, UnavailableError
from trainer.buckets.url import BucketUrl
from trainer.errors import ExitError, TryAgainError, UserError
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
    """Translates errors of the local disk while the files of a bucket are written to `path`.

    Raises:
      UserError: if the disk is full, or the folder cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{path}, the local folder of what is in the bucket, cannot be used: {error.strerror} "
            f"({error.filename or path}).\nName another folder with --cache_dir."
        ) from error


def patiently(
    url: BucketUrl,
    request: Callable[[], _Answer],
    *,
    patience: float | None = None,
    repeat_if_refused: bool = False,
    reporter: "threading.Lock | None" = None,
) -> _Answer:
    """Returns what `request` returns; repeats it while the bucket does not answer.

    Args:
      url: URL of the folder, for messages.
      request: the request.
      patience: time for which the request is repeated, in seconds (None: three minutes).
      repeat_if_refused: whether to repeat a request that the bucket refuses, which it may do for a
        while when credentials are renewed.
      reporter: a lock that several threads share, so that only one of them reports the failure.

    Raises:
      TryAgainError: if the bucket does not answer for this time.
      UserError: if the bucket refuses the request.
    """
    patience = _PATIENCE if patience is None else patience
    reporter, reported = reporter or threading.Lock(), False
    end = time.monotonic() + patience
    try:
        while True:
            begin = time.monotonic()
            try:
                return request()
            except UnavailableError as error:
                refused = isinstance(error, RefusedError)
                if begin + patience < time.monotonic():  # A long download was interrupted.
                    end = time.monotonic() + patience
                if time.monotonic() > end or (refused and not repeat_if_refused):
                    raise _given_up(url, error) from error
                if not reported and (reported := reporter.acquire(blocking=False)):
                    log(f"{url} cannot be reached: {error}; trying for {patience:g} s")
                time.sleep(min(2, patience / 10))
    finally:
        if reported:
            reporter.release()


def _given_up(url: BucketUrl, error: UnavailableError) -> ExitError:
    if isinstance(error, RefusedError):
        return UserError(buckets.refusal(url, error))
    return TryAgainError(
        f"{url} cannot be reached: {error}.\nCheck the network, and give the same command again."
    )


def at_once(call: Callable[[_Item], _Answer], items: Iterable[_Item]) -> list[_Answer]:
    """Calls `call` for each of `items` in several threads; returns the answers in their order."""
    with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(call, items))
