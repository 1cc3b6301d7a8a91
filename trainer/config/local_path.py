"""Checks the paths in flags. Runs and data may be in a bucket; other paths must be local."""

import os
import re

from trainer.buckets import url

# The second alternative finds URLs that lost a slash, because pathlib turns // into /.
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)(?=://)|(abfss?|file|ftp|gs|hdfs|https?|s3a?)(?=:/)")
_COPIES = {
    "gs": "with `gcloud storage rsync --recursive`",
    "s3": "with `aws s3 sync`",
    "hdfs": "with `hdfs dfs -put` or `-get`",
}


def scheme(path: str) -> str:
    """Returns a URL's scheme in lower case, such as gs for gs://b/x or gs:/b/x; "" for a path."""
    found = _URL.match(path.strip())
    return (found[1] or found[2]).lower() if found else ""


def empty(value: str) -> str:
    """Returns why a blank `value` cannot be used; "" if `value` is not blank."""
    if value.strip():
        return ""
    return (
        "is empty: if you wrote a shell variable as the value, check that it is set; otherwise "
        "give a value, or leave the flag out"
    )


def data_problem(path: str) -> str:
    """Returns why `path` cannot be a folder of images, local or in a bucket; "" if it can be."""
    return _bucket_problem(path) if scheme(path) in url.SCHEMES else problem(path)


def remote_problem(path: str) -> str:
    """Returns why TFDS cannot use `path`, which may be a URL; "" if TFDS can use it."""
    kind = scheme(path)
    if kind in url.SCHEMES:
        return _bucket_problem(path)
    if kind and "://" not in path:
        return f"is a URL with one slash, which would name a local folder: write {kind}://"
    return _home_problem(path) or empty(path)


def problem(path: str) -> str:
    """Returns why `path` cannot be used, and a remedy, for a message; "" if it can be used."""
    kind = scheme(path)
    if kind == "file":
        return "is a URL: write the path alone, as in /data/x"
    if kind:
        how = _COPIES.get(kind, "by hand")
        copy = f"name a local folder, and copy the files between that folder and the URL {how}"
        return f"is a URL, and only local disks are read and written: {copy}"
    return _home_problem(path) or empty(path)


def run_problem(path: str) -> str:
    """Returns why `path` cannot be a run directory, local or in a bucket; "" if it can be one."""
    return url.problem(path) if scheme(path) in url.SCHEMES else problem(path)


def _bucket_problem(path: str) -> str:
    return url.problem(path, of_run=False)


def _home_problem(path: str) -> str:
    """Returns a reason to refuse `path` if its ~ stands for a home folder; "" if it does not.

    A shell pattern such as *.jpg may match an editor's file ~draft.jpg. So a path such as
    ~draft.jpg is accepted if it exists. The path ~ and paths that begin with ~/ are refused.
    """
    home = path.partition("/")[0]
    if home == "~":
        return "begins with ~, which the shell does not expand within a flag: write $HOME instead"
    if home.startswith("~") and not os.path.lexists(path):
        return (
            f"begins with {home}, which the shell does not expand within a flag: write the full "
            f"path of that home folder, or ./{path} for a file whose name begins with ~"
        )
    return ""
