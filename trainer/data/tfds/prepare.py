"""Prepares a TFDS dataset's files on this machine, by download or from a Debian package.

TFDS runs in a child process with a time limit, because its downloads wait forever for a server that
does not answer.
"""

import contextlib
import difflib
import os
import pathlib
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import urllib.parse
from collections.abc import Iterator
from typing import IO

import requests
import tensorflow_datasets as tfds
from google.protobuf.json_format import ParseError

from trainer.data import image_listing
from trainer.data.bucket import open_folders
from trainer.data.python import dataset as python_dataset
from trainer.errors import UserError
from trainer.system import file_lock
from trainer.system.regular_file import opener

PREPARE_SECONDS = 3600.0
REACH_SECONDS = 10.0

# Debian's package dataset-fashion-mnist puts the four files of Fashion-MNIST here. Their gzip
# headers lack the original file names and times. `restore_gzip_headers` writes copies with names
# and times. The copies have the checksums that TFDS expects.
DEBIAN_FASHION_MNIST = pathlib.Path("/usr/share/datasets/fashion-mnist")
_UPSTREAM_TIMES = {
    "train-images-idx3-ubyte.gz": 1504176606,
    "train-labels-idx1-ubyte.gz": 1504176606,
    "t10k-images-idx3-ubyte.gz": 1504176627,
    "t10k-labels-idx1-ubyte.gz": 1504176627,
}

# Program of the child process. If an error ends it, the last line of its output is the first line
# of the error.
_BUILD = """
import sys
sys.excepthook = lambda kind, error, _: print("\\n" + f"{kind.__name__}: {error}".splitlines()[0])
import tensorflow_datasets as tfds
dataset, data_dir, file_format, manual_dir = sys.argv[1:]
tfds.builder(dataset, data_dir=data_dir, file_format=file_format).download_and_prepare(
    download_dir=manual_dir or None,
    download_config=tfds.download.DownloadConfig(manual_dir=manual_dir or None))
"""

# Errors that TFDS raises for an unusable folder or name. An empty description file of a prepared
# set gives ParseError.
_UNUSABLE = (ValueError, AssertionError, TypeError, ImportError, OSError, RuntimeError, ParseError)


@open_folders.showing_urls()
def find_builder(dataset: str, data_dir: str | None) -> tfds.core.DatasetBuilder:
    """Returns TFDS's builder of a dataset, prepared or not, without importing TensorFlow.

    A prepared folder has a file features.json with names of Python modules, and TFDS imports these
    modules. The working folder is not searched for them, because it may hold downloaded code.

    If `data_dir` is in a bucket, this function fetches the files that describe the set.

    Raises:
        UserError: if TFDS has no such dataset, configuration or version, the folder is unusable, or
            only a Python program has the dataset.
    """
    if dataset == python_dataset.DATASET:
        raise python_dataset.refusal(python_dataset.TRAINING)
    data_dir = open_folders.local_data_dir(data_dir, dataset)
    try:
        with _only_installed_modules():
            return tfds.builder(dataset, data_dir=data_dir)
    except _UNUSABLE as error:
        unknown = isinstance(error, tfds.core.DatasetNotFoundError)
        if unknown or not _is_name(dataset):
            image_listing.refuse_path(dataset)
        if unknown:
            names = tfds.list_builders(with_community_datasets=False)
            near = " or ".join(difflib.get_close_matches(dataset, names, n=3))
            remedy = f"did you mean {near}?" if near else "choose one of tensorflow.org/datasets"
            raise UserError(f"--dataset={dataset}: TFDS has no such dataset; {remedy}") from error
        reason = str(error).rpartition('}": ')[2] or type(error).__name__  # Drops TFDS's preamble.
        raise UserError(f"--dataset={dataset}: {textwrap.shorten(reason, 300)}") from error


def _is_name(dataset: str) -> bool:
    """Returns whether `dataset` has the form of a TFDS name, so that it is not a path."""
    try:
        tfds.core.naming.parse_builder_name_kwargs(dataset)
    except ValueError:
        return False
    return True


@contextlib.contextmanager
def _only_installed_modules() -> Iterator[None]:
    """Removes the working folder, which `python -m` adds, from the import path in a with block."""
    path = sys.path[:]
    sys.path[:] = [entry for entry in path if pathlib.Path(entry).resolve() != pathlib.Path.cwd()]
    try:
        yield
    finally:
        sys.path[:] = path


def is_prepared(builder: tfds.core.DatasetBuilder) -> bool:
    """Returns whether the dataset was already prepared when `builder` was created."""
    return bool(builder.info.splits)


def prepare(
    dataset: str,
    data_dir: str | None,
    file_format: tfds.core.FileFormat = tfds.core.FileFormat.TFRECORD,
) -> tfds.core.DatasetBuilder:
    """Prepares a dataset, unless it is prepared already; returns a builder that can read it.

    Several processes may call this function at once. A lock file in the data directory lets one of
    them prepare the files while the others wait. The child process, which runs TFDS, also holds the
    lock, because it continues if this process is killed.

    Args:
        dataset: a TFDS name, optionally with configuration and version.
        data_dir: folder of prepared sets; None: TFDS's default.
        file_format: format of new files; a prepared set keeps its format.

    Raises:
        UserError: if the dataset is unknown, or cannot be prepared.
    """
    builder = find_builder(dataset, data_dir)
    if is_prepared(builder):
        return builder
    root = os.fspath(builder.data_dir_root)
    if data_dir and "://" in data_dir:
        root = data_dir
    if "://" in root:
        raise UserError(
            f"{dataset} is not prepared in {root}: {_prepare_elsewhere(dataset)} {root}"
        )
    with lock_preparation(builder, dataset) as lock:
        builder = find_builder(dataset, data_dir)
        if is_prepared(builder):  # Another process prepared it while this one waited.
            return builder
        if builder.data_path.exists():
            raise UserError(
                f"{builder.data_path} holds no prepared {dataset}: delete it and start again"
            )
        if builder.name == "fashion_mnist" and DEBIAN_FASHION_MNIST.is_dir():
            with tempfile.TemporaryDirectory() as manual_dir:
                restore_gzip_headers(DEBIAN_FASHION_MNIST, pathlib.Path(manual_dir))
                _build(dataset, root, file_format, manual_dir, PREPARE_SECONDS, lock)
        else:
            _check_manual_files(builder, dataset)
            _check_reachable(builder, dataset)
            # A set that must be fetched by hand has no time limit: preparing ImageNet takes hours.
            seconds = None if builder.MANUAL_DOWNLOAD_INSTRUCTIONS else PREPARE_SECONDS
            _build(dataset, root, file_format, "", seconds, lock)
        return find_builder(dataset, data_dir)


def restore_gzip_headers(debian: pathlib.Path, folder: pathlib.Path) -> None:
    """Copies Fashion-MNIST's files from `debian` to `folder`, and restores their gzip headers."""
    for name, seconds in _UPSTREAM_TIMES.items():
        body = (debian / name).read_bytes()[10:]  # Drops Debian's header.
        # The header (RFC 1952) has a magic number, the method (deflate), the flag FNAME, the time,
        # no extra flags, the system (Unix), the file's name, and a zero byte.
        header = b"\x1f\x8b\x08\x08" + seconds.to_bytes(4, "little") + b"\x00\x03"
        (folder / name).write_bytes(header + name.removesuffix(".gz").encode() + b"\x00" + body)


def _prepare_elsewhere(dataset: str) -> str:
    return f"prepare it on a machine with a network (`tfds build {dataset}`) and copy it to"


@contextlib.contextmanager
def lock_preparation(builder: tfds.core.DatasetBuilder, dataset: str) -> Iterator[IO[str]]:
    """Takes the set's lock in the data directory, and yields the lock file.

    Raises:
        UserError: if the directory cannot be written, or its file system has no locks, or another
            process holds the lock for more than `PREPARE_SECONDS`.
    """
    path = pathlib.Path(builder.data_dir_root) / f".{builder.name}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = open(path, "w", opener=opener)  # noqa: SIM115
    except OSError as error:
        raise UserError(
            f"{dataset} cannot be prepared in {path.parent}, which cannot be written "
            f"({error.strerror}): give another --data_dir"
        ) from error
    with lock:
        deadline = time.monotonic() + PREPARE_SECONDS
        while not file_lock.take(lock):
            if time.monotonic() > deadline:
                raise UserError(
                    f"another process has been preparing {dataset} in {path.parent} for "
                    f"{PREPARE_SECONDS / 60:.0f} minutes: end it and start again"
                )
            time.sleep(0.2)
        yield lock


def _check_manual_files(builder: tfds.core.DatasetBuilder, dataset: str) -> None:
    """Refuses a dataset if its files must be fetched by hand, and the folder for them is empty."""
    instructions = builder.MANUAL_DOWNLOAD_INSTRUCTIONS
    folder = pathlib.Path(builder.data_dir_root) / "downloads" / "manual"
    if instructions and not (folder.is_dir() and any(folder.iterdir())):
        raise UserError(
            f"{dataset} must be fetched by hand into {folder}: " + " ".join(instructions.split())
        )


def _check_reachable(builder: tfds.core.DatasetBuilder, dataset: str) -> None:
    """Refuses a dataset if its server does not offer the first file within `REACH_SECONDS`."""
    urls = [url for url in builder.url_infos or {} if url.startswith("http")]
    if not urls:
        return
    # The thread limits the total time. The timeout of `requests` limits each connection attempt and
    # each read separately, and does not limit the look-up of the server's address.
    problems = ["no answer"]
    thread = threading.Thread(target=_check_offered, args=(urls[0], problems), daemon=True)
    thread.start()
    thread.join(REACH_SECONDS)
    if problems:
        host = urllib.parse.urlsplit(urls[0]).hostname
        remedy = f"{_prepare_elsewhere(dataset)} {builder.data_dir_root}, or give --data_dir"
        if builder.name == "fashion_mnist":
            remedy = f"apt-get install dataset-fashion-mnist, or {remedy}"
        raise UserError(
            f"{dataset} is not prepared in {builder.data_dir_root} and {host} cannot be reached "
            f"({problems[0]}).\nTo get it: {remedy}"
        )


def _check_offered(url: str, problems: list[str]) -> None:
    """Empties `problems` if the server offers the file; otherwise stores a reason in the list."""
    try:
        with requests.get(url, stream=True, timeout=REACH_SECONDS) as response:
            if response.ok:
                problems.clear()
            else:
                problems[0] = f"HTTP status {response.status_code}"
    except requests.RequestException as error:
        problems[0] = type(error).__name__


def _build(
    dataset: str,
    data_dir: str,
    file_format: tfds.core.FileFormat,
    manual_dir: str,
    seconds: float | None,
    lock: IO[str],
) -> None:
    """Runs `download_and_prepare` in a child process for at most `seconds`; None: no limit."""
    print(f"Preparing {dataset} in {data_dir} (once) ...", file=sys.stderr, flush=True)
    with tempfile.TemporaryFile("w+") as output:
        try:
            status = subprocess.run(
                [sys.executable, "-c", _BUILD, dataset, data_dir, file_format.value, manual_dir],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=None if sys.stderr.isatty() else subprocess.DEVNULL,  # TFDS's progress bars
                env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},  # The child takes no GPU memory.
                pass_fds=[lock.fileno()],
                timeout=seconds,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired as error:
            raise UserError(
                f"preparing {dataset} in {data_dir} took more than {PREPARE_SECONDS / 60:.0f} "
                f"minutes: run `tfds build {dataset} --data_dir={data_dir} "
                f"--file_format={file_format.value}` first"
            ) from error
        output.seek(0)
        last = (output.read().splitlines() or ["no message"])[-1]
        reason = last if status == 1 else f"exit status {status}"
    if status != 0:
        raise UserError(f"TFDS could not prepare {dataset} in {data_dir}: {reason}")
