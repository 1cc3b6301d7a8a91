"""Gives the commands that read runs local copies of runs that are in buckets."""

import contextlib
import dataclasses
import functools
import pathlib
import tempfile
from collections.abc import Callable, Iterator

from trainer.buckets import lease
from trainer.buckets.url import BucketUrl, parse
from trainer.config.flags import Config
from trainer.errors import UserError
from trainer.run_dir import bucket_run, temporary_folder
from trainer.run_dir.bucket_connection import connect, local_disk, local_folder, patiently
from trainer.run_dir.manifest import Manifest
from trainer.run_dir.mirror_download import download
from trainer.system import typed_json
from trainer.system.atomic_file import move_atomic, write_json
from trainer.system.output import log

_BY_THEMSELVES = ("train", "range_test", "fetch")  # Commands that open a run in a bucket.
# File that names the run of which a folder is a copy.
_COPY = "fetched.json"
_URL = typed_json.fields({"url": typed_json.text})
_WITH_MODEL = ("evaluate", "export", "predict")


@contextlib.contextmanager
def local_runs(command: str, config: Config) -> Iterator[Config]:
    """Yields `config` with local paths in place of the URLs of runs that `command` reads.

    A command that writes into the run directory owns the run while the context lasts. Other
    commands read copies of the files, and may read a run that another process trains.

    Raises:
      UserError: if the bucket cannot be used or has no run, or `sweep` should write to it.
    """
    url = parse(config.model_dir or "")
    remote = [path for path in config.runs if parse(path)]
    with contextlib.ExitStack() as stack:
        if url is not None and command == "sweep":
            raise UserError(
                f"--model_dir={url} is in a bucket, which `sweep` cannot write to.\n"
                "Sweep in a local folder, and copy it to the bucket."
            )
        if url is not None and command not in _BY_THEMSELVES:
            if config.per_class or (command == "export" and not config.export_dir):
                owner = bucket_run.owned(url, config.cache_dir, config.worker_timeout)
                path = stack.enter_context(owner).path
            else:
                path = stack.enter_context(_folder(url, config.cache_dir))
                wanted = _anything if command in _WITH_MODEL else _without_model
                _read(url, path, wanted)
            config = dataclasses.replace(config, model_dir=str(path))
        if remote:
            runs = [
                path if path not in remote else stack.enter_context(_all_below(path, config))
                for path in config.runs
            ]
            config = dataclasses.replace(config, runs=tuple(runs))
        yield config


def fetch(url: BucketUrl, folder: pathlib.Path) -> Manifest:
    """Replaces `folder` by a copy of the run at `url`; returns the state that was copied.

    Raises:
      UserError: if the bucket cannot be used or has no run; or if `folder` exists and is not an
        earlier copy of this run, cannot be written, or is used by another process.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _check_is_copy(folder, url)
        with temporary_folder.beside(folder) as work:
            new = work / "new"
            new.mkdir()
            state = _read(url, new, _anything)
            write_json(new / _COPY, {"url": str(url)})
            move_atomic(new, folder, aside=work / "old")
    except OSError as error:
        raise UserError(
            f"--local_dir={folder} cannot be written: {error.strerror} ({error.filename})."
        ) from error
    return state


def _check_is_copy(folder: pathlib.Path, url: BucketUrl) -> None:
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    try:
        copied = typed_json.read_existing(folder / _COPY, _URL)
    except (typed_json.DamagedError, OSError):
        copied = None
    if copied is None or copied["url"] != str(url):
        raise UserError(
            f"--local_dir={folder} exists and is not a copy of {url}: name a new folder, or one "
            "that `fetch` wrote before."
        )
    if (folder / "lock").exists():
        raise UserError(
            f"--local_dir={folder} was trained after it was fetched: name another folder."
        )


@contextlib.contextmanager
def _folder(url: BucketUrl, cache_dir: str | None) -> Iterator[pathlib.Path]:
    """Yields an empty folder with the last name in `url`, and removes it on exit."""
    cache = local_folder(url, cache_dir).parent
    with local_disk(cache):
        cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".read-") as above:
        path = pathlib.Path(above, url.folder.rpartition("/")[2])
        path.mkdir()
        yield path


@contextlib.contextmanager
def _all_below(text: str, config: Config) -> Iterator[str]:
    """Yields a folder with the logs and results of all runs at and below a URL."""
    url = parse(text)
    assert url is not None
    objects = connect(url)
    names = patiently(url, lambda: objects.names(""))
    runs = [name.removesuffix(lease.NAME).rstrip("/") for name in names if _is_lease(name)]
    with _folder(url, config.cache_dir) as path:
        found = 0
        for run in runs:
            (path / run).mkdir(parents=True, exist_ok=True)
            below = dataclasses.replace(url, folder=f"{url.folder}/{run}".rstrip("/"))
            try:
                _read(below, path / run, _without_model)
                found += 1
            except UserError as error:  # The run may not have begun, or is damaged.
                log(f"left out: {str(error).partition(chr(10))[0]}")
        if not found:
            raise UserError(f"{url} has no run: name the folder of runs in the bucket.")
        yield str(path)


def _is_lease(name: str) -> bool:
    return name == lease.NAME or name.endswith(f"/{lease.NAME}")


def _read(url: BucketUrl, path: pathlib.Path, wanted: Callable[[str], bool]) -> Manifest:
    objects = connect(url)
    with local_disk(path):
        read = patiently(url, functools.partial(download, objects, str(url), path, wanted))
    if read is None:
        raise UserError(f"{url} has no run: name the folder of a run in the bucket.")
    return read[0]


def _anything(_: str) -> bool:
    return True


def _without_model(path: str) -> bool:
    return not path.startswith(("checkpoints/", "tensorboard/", "export/"))
