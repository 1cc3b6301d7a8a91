"""Connects to Google Cloud Storage or S3 with the client obstore."""

import contextlib
import datetime
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

from trainer.buckets import aws_profile
from trainer.buckets.objects import (
    ConflictError,
    MissingError,
    Objects,
    RefusedError,
    UnavailableError,
)
from trainer.buckets.url import SCHEMES, BucketUrl
from trainer.errors import UserError

try:
    import obstore
    from obstore import exceptions, store
except ImportError:  # Only runs in buckets need the package.
    obstore = None  # type: ignore[assignment]

_CONNECT, _READ, _WHOLE = (datetime.timedelta(seconds=s) for s in (10, 60, 3600))
# A request is repeated for at most 30 s after errors that may be temporary.
_RETRIES = {"max_retries": 5, "retry_timeout": datetime.timedelta(seconds=30)}
# Files of up to this size are sent in one request. Larger files are sent in pieces.
_SINGLE_BYTES = 64 * 2**20
_NO_BUCKET = re.compile(r"NoSuchBucket|specified bucket does not exist")
_DENIED = re.compile(r"status code: 40[13] ")
# Addresses from which a cloud's machine receives credentials. A request fails on other machines.
_METADATA = re.compile(r"169\.254\.169\.254|metadata\.google\.internal|169\.254\.170\.2")


def connect(url: BucketUrl) -> Objects:
    """Returns the objects of the folder `url`; sends no request yet.

    Raises:
      UserError: if obstore is not installed.
    """
    if obstore is None:
        raise UserError(
            f"{url} is in {SCHEMES[url.scheme]}, and the package obstore is not installed.\n"
            "Install it: pip install 'crescendo[cloud]'"
        )
    return _StoreObjects(url)


class _StoreObjects:
    """Implements `Objects`.

    The version of an object is its generation in Google Cloud Storage, and its ETag in S3.
    """

    def __init__(self, url: BucketUrl) -> None:
        self._store = _store(url)

    def create(self, name: str, content: bytes) -> str:
        return self._put(name, content, "create")

    def replace(self, name: str, content: bytes, version: str) -> str:
        return self._put(name, content, _condition(version))

    def _put(self, name: str, content: bytes, mode: Any) -> str:
        with _translated(writes=True):
            done = obstore.put(self._store, name, content, mode=mode, use_multipart=False)
            return _version(done)

    def read(self, name: str) -> tuple[bytes, str]:
        with _translated():
            found = obstore.get(self._store, name)
            return bytes(found.bytes()), _version(found.meta)

    def upload(self, name: str, file: BinaryIO, size: int) -> None:
        with _translated(writes=True):
            if size <= _SINGLE_BYTES:
                obstore.put(self._store, name, file.read(size), use_multipart=False)
            else:
                obstore.put(self._store, name, _pieces(file, size))

    def download(self, name: str, file: BinaryIO) -> None:
        with _translated():
            for chunk in obstore.get(self._store, name).stream():
                file.write(chunk)

    def names(self, prefix: str) -> list[str]:
        folder, _, _ = prefix.rpartition("/")
        with _translated():
            found = [e["path"] for part in obstore.list(self._store, folder or None) for e in part]
        return sorted(path for path in found if path.startswith(prefix))

    def delete(self, name: str) -> None:
        with contextlib.suppress(MissingError), _translated():
            obstore.delete(self._store, name)


def _store(url: BucketUrl) -> Any:
    """Returns obstore's client for the folder `url`."""
    client: Any = {"connect_timeout": _CONNECT, "read_timeout": _READ}
    options: dict[str, Any] = {"prefix": url.folder, "retry_config": _RETRIES}
    if url.scheme == "gs":
        config: Any = {}
        endpoint = os.environ.get("STORAGE_EMULATOR_HOST")
        if endpoint:  # A server for tests, which accepts every token.
            config["base_url"] = endpoint
            options["credential_provider"] = lambda: {"token": "none", "expires_at": None}
    else:
        config = aws_profile.settings()
        endpoint = config.get("endpoint")
    # A server on this machine or in this cluster may lack TLS.
    plain = (endpoint or "").startswith("http://")
    client |= {"timeout": _WHOLE, "allow_http": plain}
    kind = store.GCSStore if url.scheme == "gs" else store.S3Store
    return kind(url.bucket, config=config, client_options=client, **options)


def _condition(version: str) -> dict[str, str]:
    kind, _, value = version.partition(":")
    return {kind: value}


def _version(found: Mapping[str, Any]) -> str:
    """Returns the version of an object as text that `_condition` can read."""
    # Google Cloud Storage compares generations only; S3 without versioning has ETags only.
    kind = "version" if found.get("version") else "e_tag"
    return f"{kind}:{found[kind]}"


def _pieces(file: BinaryIO, size: int) -> Iterator[bytes]:
    while size:
        piece = file.read(min(size, 8 * 2**20))
        if not piece:
            raise OSError("a file of the run became shorter while it was read")
        size -= len(piece)
        yield piece


@contextlib.contextmanager
def _translated(*, writes: bool = False) -> Iterator[None]:
    """Translates obstore's errors; `writes` tells that only the bucket can be missing."""
    try:
        yield
    except (exceptions.AlreadyExistsError, exceptions.PreconditionError) as error:
        raise ConflictError(_short(error)) from error
    except FileNotFoundError as error:
        if writes or _NO_BUCKET.search(str(error)):
            raise RefusedError("the bucket does not exist") from error
        raise MissingError(_short(error)) from error
    except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
        raise RefusedError(_short(error)) from error
    except exceptions.NotSupportedError as error:
        raise RefusedError(f"the service has no conditional writes: {_short(error)}") from error
    except (exceptions.BaseError, OSError) as error:
        text = str(error)
        if _NO_BUCKET.search(text):
            raise RefusedError("the bucket does not exist") from error
        if _METADATA.search(text):
            raise RefusedError("no credentials were found") from error
        kind = RefusedError if _DENIED.search(text) else UnavailableError
        raise kind(_short(error)) from error


def _short(error: Exception) -> str:
    """Returns what went wrong, without the address, the repetitions and the answer's content."""
    line = (str(error).splitlines() or [type(error).__name__])[0]
    reason = line.rpartition(" - ")[2].removeprefix("Server returned non-2xx status code: ")
    return re.split(r": [<{]", reason)[0][:300].strip(".: ")
