"""Problems of a path that must name something on this machine's disks."""

import re

# A path normaliser leaves one slash of a URL's two, as pathlib does.
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)(?=://)|(abfss?|file|ftp|gs|hdfs|https?|s3a?)(?=:/)")
_COPIES = {
    "gs": "with `gcloud storage rsync --recursive`",
    "s3": "with `aws s3 sync`",
    "hdfs": "with `hdfs dfs -put` or `-get`",
}


def scheme(path: str) -> str:
    """The scheme of a URL, in small letters: gs of gs://bucket/x, and of gs:/bucket/x; or ""."""
    found = _URL.match(path.strip())
    return (found[1] or found[2]).lower() if found else ""


def empty(value: str) -> str:
    """Why `value` cannot be used, if it is empty or blank; or ""."""
    if value.strip():
        return ""
    return "is empty: the shell variable that it came from may be unset; give a value, or no flag"


def remote_problem(path: str) -> str:
    """Why `path` cannot be used where TFDS also reads URLs; "" if it can."""
    kind = scheme(path)
    if kind and "://" not in path:
        return f"is a URL with one slash, which would be a local folder: write {kind}://"
    return empty(path)


def problem(path: str) -> str:
    """Why `path` cannot be used, and what to do instead, after its name; "" if it can."""
    kind = scheme(path)
    if kind == "file":
        return "is a URL: write the path alone, as in /data/x"
    if kind:
        copy = _COPIES.get(kind, "by hand")
        return (
            f"is a URL, and only local disks are read and written: name a folder, and copy {copy}"
        )
    return empty(path)
