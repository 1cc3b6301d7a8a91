"""Connects to the bucket of a run, and waits for a bucket that does not answer."""

import hashlib
import os
import pathlib
import re
import time
from collections.abc import Callable
from typing import TypeVar

from trainer.buckets import objects as buckets
from trainer.buckets.objects import Objects, RefusedError, UnavailableError
from trainer.buckets.url import BucketUrl
from trainer.errors import UserError
from trainer.system.output import log

# Seconds that the start of a command waits for a bucket that does not answer.
_PATIENCE = 180.0
_Answer = TypeVar("_Answer")


def local_folder(url: BucketUrl, cache_dir: str | None) -> pathlib.Path:
    """Returns the local directory of the run at `url`, in `cache_dir` or the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    root = pathlib.Path(cache_dir or pathlib.Path(cache, "crescendo")).expanduser()
    readable = re.sub(r"[^A-Za-z0-9._]+", "-", str(url))[:100]
    digest = hashlib.sha256(str(url).encode()).hexdigest()[:8]  # Two URLs may look the same.
    return root / "runs" / f"{readable}-{digest}"


def connect(url: BucketUrl) -> Objects:
    """Returns the objects of the folder `url`; sends no request yet.

    Raises:
      UserError: if obstore is not installed.
    """
    from trainer.buckets import client  # Only runs in buckets import obstore.

    return client.connect(url)


def patiently(url: BucketUrl, request: Callable[[], _Answer]) -> _Answer:
    """Returns what `request` returns; repeats it while the bucket does not answer.

    Raises:
      UserError: if the bucket refuses the request, or does not answer for some minutes.
    """
    end, told = time.monotonic() + _PATIENCE, False
    while True:
        try:
            return request()
        except RefusedError as error:
            raise UserError(buckets.refusal(url, error)) from error
        except UnavailableError as error:
            if time.monotonic() > end:
                raise UserError(
                    f"{url} cannot be reached: {error}.\n"
                    "Check the network, and give the same command again."
                ) from error
            if not told:
                log(f"{url} cannot be reached: {error}; trying for {_PATIENCE:g} s")
            told = True
            time.sleep(2)
