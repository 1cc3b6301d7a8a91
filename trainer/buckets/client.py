"""Connects to Google Cloud Storage or S3 with the client obstore."""

import contextlib
import datetime
import os
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from trainer.buckets import aws_profile
from trainer.buckets.objects import (
    ConflictError,
    MissingError,
    Objects,
    RefusedError,
    Stat,
    UnavailableError,
)
from trainer.buckets.url import SCHEMES, BucketUrl
from trainer.errors import UserError
from trainer.system.regular_file import chunks

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
_PIECE = 8 * 2**20
# Clients cannot list a folder with such an object, as a//b.
_UNUSABLE_NAME = re.compile(r"object with invalid path: (.*?)(?:\n\nDebug source|$)", re.DOTALL)
# The answer to a request for bytes after the end of an object.
_SHORTER = "status code: 416 "
_NO_BUCKET = re.compile(r"NoSuchBucket|specified bucket does not exist")
# Answers that do not change if the request is repeated.
_REFUSED = re.compile(r"status code: (301|307|400|401|403|501) ")
_OTHER_REGION = re.compile(r"incorrectly configured region|status code: 30[17] ")
# Addresses from which a cloud's machine receives credentials. A request fails on other machines.
_METADATA = re.compile(r"169\.254\.169\.254|metadata\.google\.internal|169\.254\.170\.2")


def connect(url: BucketUrl) -> Objects:
    """Returns the objects of the folder `url`; sends no request yet.

    Raises:
      RefusedError: if the client cannot use the credentials or settings.
      UserError: if obstore is not installed, or AWS_PROFILE names a profile without keys.
    """
    if obstore is None:
        raise UserError(
            f"{url} is in {SCHEMES[url.scheme]}, and the package obstore is not installed.\n"
            "Install it in Crescendo's folder: pip install -e '.[cloud]'"
        )
    return _StoreObjects(url)


class _StoreObjects:
    """Implements `Objects`.

    The version of an object is its generation in Google Cloud Storage, and its ETag in S3.
    """

    def __init__(self, url: BucketUrl) -> None:
        self._version = "version" if url.scheme == "gs" else "e_tag"
        try:
            with _translated():
                self._store = _store(url)
        except UnavailableError as error:  # No request was sent, so that a repetition cannot help.
            raise RefusedError(str(error)) from error

    def create(self, name: str, content: bytes) -> str:
        return self._put(name, content, "create")

    def replace(self, name: str, content: bytes, version: str) -> str:
        return self._put(name, content, {self._version: version})

    def _put(self, name: str, content: bytes, mode: Any) -> str:
        with _translated(writes=True):
            put = obstore.put(self._store, name, content, mode=mode, use_multipart=False)
            return str(dict(put)[self._version])

    def read(self, name: str) -> tuple[bytes, str]:
        with _translated():
            found = obstore.get(self._store, name)
            return bytes(found.bytes()), str(dict(found.meta)[self._version])

    def upload(self, name: str, file: BinaryIO, size: int) -> None:
        try:
            with _translated(writes=True):
                if size <= _SINGLE_BYTES:
                    content = file.read(size)
                    obstore.put(self._store, name, content, mode="create", use_multipart=False)
                else:  # S3 allows 10,000 pieces.
                    piece = max(_PIECE, size // 9_000)
                    obstore.put(self._store, name, chunks(file, size, piece), chunk_size=piece)
        except ConflictError as error:
            raise UnavailableError(f"{name} exists already") from error

    def download(self, name: str, file: BinaryIO) -> Stat:
        with _translated():
            found = obstore.get(self._store, name)
            chunks = iter(found.stream())
        while True:
            with _translated():
                chunk = next(chunks, None)
            if chunk is None:
                return _stat(found.meta)
            file.write(chunk)  # A full disk is not an error of the bucket.

    def read_range(self, name: str, start: int, stop: int) -> tuple[bytes, Stat]:
        with _translated():
            found = obstore.get(self._store, name, options={"range": (start, stop)})
            return bytes(found.bytes()), _stat(found.meta)

    def stats(self) -> Iterator[tuple[str, Stat]]:
        parts = iter(obstore.list(self._store))
        while True:
            with _translated():
                part = next(parts, None)
            if part is None:
                return
            for meta in part:
                yield meta["path"], _stat(meta)

    def names(self, prefix: str) -> list[str]:
        folder, _, _ = prefix.rpartition("/")
        with _translated():
            found = [e["path"] for part in obstore.list(self._store, folder or None) for e in part]
        return sorted(path for path in found if path.startswith(prefix))

    def delete(self, name: str) -> None:
        try:
            with contextlib.suppress(MissingError), _translated():
                obstore.delete(self._store, name)
        except ConflictError as error:
            raise UnavailableError(str(error)) from error


def _stat(meta: Any) -> Stat:
    # The clients of the services give fractions of a second in some answers only.
    tag = (meta["e_tag"] or "").strip('"')
    return Stat(meta["size"], int(meta["last_modified"].timestamp()), tag)


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
        if endpoint and not re.match("https?://[^/]", endpoint):
            raise RefusedError(
                f"AWS_ENDPOINT_URL={endpoint} is not a URL such as https://host:9000"
            )
        if aws_profile.has_keys():
            options["credential_provider"] = aws_profile.credentials
    # A server on this machine or in this cluster may lack TLS.
    plain = (endpoint or "").startswith("http://")
    client |= {"timeout": _WHOLE, "allow_http": plain}
    kind = store.GCSStore if url.scheme == "gs" else store.S3Store
    return kind(url.bucket, config=config, client_options=client, **options)


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
    except (exceptions.BaseError, OSError, ValueError) as error:
        if found := _UNUSABLE_NAME.search(str(error)):
            raise UserError(
                f"the bucket has an object whose name cannot be a path: {found[1]!r}.\n"
                "Rename or delete this object, or name a folder without such objects."
            ) from error
        if _SHORTER in str(error):
            raise ConflictError("the object has fewer bytes") from error
        raise _kind(str(error))(_reason(error)) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # obstore's, for settings that it cannot use.
            raise
        raise RefusedError(f"its client cannot use the settings: {_short(error)}") from error


def _kind(text: str) -> type[UnavailableError]:
    """Returns the error for a failure that has no exception of its own in obstore."""
    refused = (_NO_BUCKET, _METADATA, _REFUSED, _OTHER_REGION)
    return RefusedError if any(each.search(text) for each in refused) else UnavailableError


def _reason(error: Exception) -> str:
    text = str(error)
    if _NO_BUCKET.search(text):
        return "the bucket does not exist"
    if _METADATA.search(text):
        return "no credentials were found"
    if _OTHER_REGION.search(text):
        return "the bucket is in another region than the one that AWS_REGION names"
    return _short(error)


def _short(error: BaseException) -> str:
    """Returns what went wrong, without the address, the repetitions and the answer's content."""
    line = (str(error).splitlines() or [type(error).__name__])[0]
    reason = line.rpartition(" - ")[2].removeprefix("Server returned non-2xx status code: ")
    return re.split(r": [<{]", reason)[0][:300].strip(".: ")
