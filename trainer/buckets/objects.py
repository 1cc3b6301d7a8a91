"""Defines what the program needs of a bucket, and checks that a service provides it."""

import secrets
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple, Protocol

from trainer.buckets.url import BucketUrl
from trainer.errors import UserError

PROBE = "probe-"  # Beginning of the names of objects that `check_conditions` creates.


class ConflictError(Exception):
    """Raised if an object already exists, or is not of the expected version."""


class MissingError(Exception):
    """Raised if an object does not exist."""


class UnavailableError(Exception):
    """Raised if a request failed, although it was repeated; it may succeed later."""


class RefusedError(UnavailableError):
    """Raised if the bucket does not exist, or the credentials are missing or lack a permission."""


class Stat(NamedTuple):
    """Size and time of an object, as a listing tells them.

    Attributes:
      size: size, in bytes.
      modified: time of its last change, in seconds since 1970.
      tag: text that differs for each content (the ETag of both services).
    """

    size: int
    modified: int
    tag: str


class ReadableObjects(Protocol):
    """Objects of one folder in a bucket, to be read; their names are relative to the folder.

    All methods raise an UnavailableError if the request fails.
    """

    def read(self, name: str) -> tuple[bytes, str]:
        """Returns the content and the version of an object.

        Raises:
          MissingError: if the object does not exist.
        """

    def download(self, name: str, file: BinaryIO) -> Stat:
        """Writes the content of an object to `file`.

        Raises:
          MissingError: if the object does not exist.
        """

    def names(self, prefix: str) -> list[str]:
        """Returns the names that begin with `prefix`, in alphabetical order."""


class Objects(ReadableObjects, Protocol):
    """Objects of one folder in a bucket, to be read and written.

    An object appears whole or not at all, and each write gives it a new version.
    """

    def create(self, name: str, content: bytes) -> str:
        """Creates an object; returns its version.

        Raises:
          ConflictError: if the object exists. A repeated request may have created it.
        """

    def replace(self, name: str, content: bytes, version: str) -> str:
        """Replaces an object that has `version`; returns its new version.

        Raises:
          ConflictError: if the object has another version. A repeated request may have written it.
        """

    def upload(self, name: str, file: BinaryIO, size: int) -> None:
        """Creates an object from the next `size` bytes of `file`."""

    def read_range(self, name: str, start: int, stop: int) -> tuple[bytes, Stat]:
        """Returns the bytes of an object from position `start` to `stop`, or to its end.

        Raises:
          ConflictError: if the object ends at `start` or before.
          MissingError: if the object does not exist.
        """

    def stats(self) -> Iterator[tuple[str, Stat]]:
        """Yields the names of all objects, and what the listing tells of them."""

    def delete(self, name: str) -> None:
        """Deletes an object, if it exists."""


def refusal(url: BucketUrl, error: RefusedError) -> str:
    """Returns the message for a bucket that does not let this process read and write."""
    sources = {
        "gs": "`gcloud auth application-default login`, or GOOGLE_APPLICATION_CREDENTIALS",
        "s3": "`aws configure`, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    }
    return (
        f"{url} cannot be used: {error}.\nCheck the bucket's name, and give this process "
        "credentials that may list and read, and for a run also create and delete: "
        f"{sources[url.scheme]}."
    )


def check_conditions(objects: Objects) -> None:
    """Checks that a request can create or replace an object under a condition.

    Writes an object with a random name, and deletes it.

    Raises:
      UserError: if the service ignores the condition.
    """
    for _ in range(3):  # If an answer is lost, the repeated request fails as if it was forbidden.
        name = f"{PROBE}{secrets.token_hex(8)}"
        try:
            kept = _keeps_conditions(objects, name)
            break
        except ConflictError:
            continue
        finally:
            objects.delete(name)
    else:
        raise UnavailableError("it refuses to create new objects")
    if not kept:
        raise UserError(
            "the bucket's service overwrites an object although the request forbids it, so that "
            "two runs could write to one folder.\nChoose a service with conditional writes, or a "
            "local --model_dir."
        )


def _keeps_conditions(objects: Objects, name: str) -> bool:
    first = objects.create(name, b"1")
    second = objects.replace(name, b"2", first)
    return (
        _refuses(lambda: objects.create(name, b"3"))
        and _refuses(lambda: objects.replace(name, b"3", first))
        and objects.read(name) == (b"2", second)
    )


def _refuses(call: Callable[[], str]) -> bool:
    """Returns whether `call` raises a ConflictError."""
    try:
        call()
    except ConflictError:
        return True
    return False
