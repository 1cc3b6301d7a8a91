"""Gives the commands that read runs local copies of runs that are in buckets."""

import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterable, Iterator

from trainer.buckets import lease
from trainer.buckets.objects import MissingError
from trainer.buckets.url import BucketUrl, parse
from trainer.config.flags import Config
from trainer.errors import UserError
from trainer.run_dir import bucket_run, directory, manifest, temporary_folder
from trainer.run_dir.bucket_connection import (
    at_once,
    connect,
    local_disk,
    local_folder,
    patiently,
)
from trainer.run_dir.manifest import Manifest
from trainer.run_dir.mirror_download import download
from trainer.system import typed_json
from trainer.system.atomic_file import move_atomic, write_json
from trainer.system.output import log

_BY_THEMSELVES = ("train", "range_test", "sweep", "fetch")  # Commands that open a run in a bucket.
# File that names the run of which a folder is a copy.
_COPY = "fetched.json"
_URL = typed_json.fields({"url": typed_json.text})
_WITH_MODEL = ("evaluate", "export", "predict")


@contextlib.contextmanager
def local_runs(command: str, config: Config, only_reads: bool = False) -> Iterator[Config]:
    """Yields `config` with local paths in place of the URLs of runs that `command` reads.

    A command that writes into the run directory owns the run while the context lasts. Other
    commands, and calls that only read, read copies of the files. They may read a run that another
    process trains.

    Raises:
      UserError: if the bucket cannot be used or has no run.
    """
    url = parse(config.model_dir or "")
    remote = [path for path in config.runs if parse(path)]
    with contextlib.ExitStack() as stack:
        if url is not None and command not in _BY_THEMSELVES:
            writes = config.per_class or (command == "export" and not config.export_dir)
            if writes and not only_reads:
                _check_has_run(url, config.cache_dir)
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


def fetch(url: BucketUrl, folder: pathlib.Path, *, if_exists: bool = False) -> Manifest | None:
    """Replaces `folder` by a copy of the run at `url`.

    Args:
      url: URL of the run.
      folder: folder of the copy.
      if_exists: whether to remove an earlier copy, and not to raise an error, if `url` has no run.

    Returns:
      The state that was copied; None if there is none.

    Raises:
      UserError: if the bucket cannot be used or has no run; or if `folder` exists and is not an
        earlier copy of this run, cannot be written, or is used by another process.
    """
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        check_is_copy(folder, url)
        with temporary_folder.beside(folder) as work:
            new = work / "new"
            new.mkdir()
            state = _read(url, new, _anything, if_exists=if_exists)
            if state is None:
                if folder.exists():
                    folder.rename(work / "old")
                return None
            mark_as_copy(new, url)
            move_atomic(new, folder, aside=work / "old")
    return state


@contextlib.contextmanager
def writing(folder: pathlib.Path) -> Iterator[None]:
    """Translates errors of the disk while the copy `folder` is written.

    Raises:
      UserError: if a file cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise UserError(
            f"--local_dir={folder} cannot be written: {error.strerror} ({error.filename}).\n"
            "Name another folder, such as a new one below it, or free space on its disk."
        ) from error


def mark_as_copy(folder: pathlib.Path, url: BucketUrl) -> None:
    """Writes the file that names the URL of which `folder` is a copy."""
    write_json(folder / _COPY, {"url": str(url)})


def check_is_copy(folder: pathlib.Path, url: BucketUrl) -> None:
    """Checks that `folder` is new, empty, or an earlier copy of the run or sweep at `url`.

    Raises:
      UserError: if it is not, or if the copy was trained.
    """
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
    with contextlib.ExitStack() as stack:
        with local_disk(cache):
            cache.mkdir(parents=True, exist_ok=True)
            work = stack.enter_context(temporary_folder.beside(cache / "read"))
            path = work / "new" / url.folder.rpartition("/")[2]
            path.mkdir(parents=True)
        yield path


@contextlib.contextmanager
def _all_below(text: str, config: Config) -> Iterator[str]:
    """Yields a folder with the logs and results of all runs at and below a URL.

    The folder has the sweep.json of each sweep, too. A point of a sweep may have failed before it
    had any other files.
    """
    url = parse(text)
    assert url is not None
    objects = connect(url)
    names = patiently(url, lambda: objects.names(""))
    runs, sweeps = _folders_with(lease.NAME, names), _folders_with(directory.SWEEP, names)
    with _folder(url, config.cache_dir) as path:
        for sweep in sweeps:
            name = f"{sweep}/{directory.SWEEP}".removeprefix("/")
            with local_disk(path), contextlib.suppress(MissingError):  # It was deleted meanwhile.
                content, _ = patiently(url, functools.partial(objects.read, name))
                (path / sweep).mkdir(parents=True, exist_ok=True)
                (path / sweep / directory.SWEEP).write_bytes(content)

        def read(run: str) -> bool:
            (path / run).mkdir(parents=True, exist_ok=True)
            try:
                # A report names the points of a sweep that have no run.
                is_point = run.rpartition("/")[0] in sweeps and run != ""
                _read(url.below(run), path / run, _without_model, if_exists=is_point)
            except UserError as error:  # The run may not have begun, or is damaged.
                log(f"left out: {str(error).partition(chr(10))[0]}")
                return False
            return True

        if not any(at_once(read, runs)):
            raise UserError(f"{url} has no run: name the folder of runs in the bucket.")
        yield str(path)


def _folders_with(file: str, names: Iterable[str]) -> list[str]:
    """Returns the folders that have an object `file`, of the objects `names`."""
    return [n.removesuffix(file).rstrip("/") for n in names if n.rpartition("/")[2] == file]


def _read(
    url: BucketUrl, path: pathlib.Path, wanted: Callable[[str], bool], *, if_exists: bool = False
) -> Manifest | None:
    """Writes the wanted files of the run at `url` to `path`; returns the state that was read.

    If the bucket has no run: returns None if `if_exists` is True, and else raises a UserError.
    """
    objects = connect(url)
    with local_disk(path):
        read = patiently(url, functools.partial(download, objects, str(url), path, wanted))
    if read is None and not if_exists:
        raise _no_run(url)
    return read[0] if read else None


def _check_has_run(url: BucketUrl, cache_dir: str | None) -> None:
    """Raises a UserError if no run is at `url`: a process that owns it would leave a lease there.

    If only this machine has files of the run, they are found later.
    """
    objects = connect(url)
    if (local_folder(url, cache_dir) / "flags.txt").exists():
        return
    if patiently(url, functools.partial(manifest.newest, objects, str(url))) is None:
        raise _no_run(url)


def _no_run(url: BucketUrl) -> UserError:
    return UserError(f"{url} has no run: name the folder of a run in the bucket.")


def _anything(_: str) -> bool:
    return True


def _without_model(path: str) -> bool:
    return not path.startswith(("checkpoints/", "tensorboard/", "export/"))
