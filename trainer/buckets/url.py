"""Parses the URLs of buckets: gs://bucket/path and s3://bucket/path."""

import dataclasses
import re

# Schemes of the URLs that this program reads and writes, and the names of their services.
SCHEMES = {"gs": "Google Cloud Storage", "s3": "S3"}
_URL = re.compile(r"(gs|s3)://([a-z0-9][a-z0-9._-]{1,220}[a-z0-9])((?:/[^/\x00-\x1f]+)*)/?")
_MOST_BYTES = 700  # Both services allow names of 1,024 bytes; a run's files need up to 300.


@dataclasses.dataclass(frozen=True)
class BucketUrl:
    """URL of a folder in a bucket.

    Attributes:
      scheme: gs or s3.
      bucket: name of the bucket.
      folder: path of the folder in the bucket, without slashes at its ends; "" for the whole
        bucket.
    """

    scheme: str
    bucket: str
    folder: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}/{self.folder}".rstrip("/")

    def below(self, name: str) -> "BucketUrl":
        """Returns the URL of the folder `name` in this folder; this one if `name` is ""."""
        return dataclasses.replace(self, folder=f"{self.folder}/{name}".strip("/"))


def parse(text: str) -> BucketUrl | None:
    """Returns the bucket and folder that a URL names; None if `text` is not such a URL."""
    found = _URL.fullmatch(text.strip())
    return BucketUrl(found[1], found[2], found[3].strip("/")) if found else None


def problem(text: str, *, of_run: bool = True) -> str:
    """Returns why `text`, which begins with gs: or s3:, is not a folder's URL; "" if it is one.

    The folder of a run must not be a whole bucket; a folder of data may be one.
    """
    scheme = text.strip()[:2].lower()
    example = f"{scheme}://bucket/runs/x"
    url = parse(text)
    if url is None:
        return f"is not the URL of a folder in a bucket: write it as in {example}"
    if of_run and not url.folder:
        return f"names a whole bucket: name a folder in the bucket, as in {example}"
    if any(each in (".", "..") for each in url.folder.split("/")):
        return "has a folder . or .., which buckets do not have: leave it out"
    if len(url.folder.encode()) > _MOST_BYTES:
        return f"has a path of more than {_MOST_BYTES} bytes: choose a shorter one"
    return ""
