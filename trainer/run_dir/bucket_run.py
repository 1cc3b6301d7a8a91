"""Opens a run whose --model_dir is the URL of a bucket: as a local directory with a copy there.

A command that trains owns the run: it holds the run's lease, restores the run from the bucket if
this machine does not have its newest state, and copies each new state to the bucket.
"""

import contextlib
import pathlib
from collections.abc import Iterator

from trainer.buckets import lease as leases
from trainer.buckets import objects as buckets
from trainer.buckets.objects import Objects
from trainer.buckets.url import BucketUrl
from trainer.errors import UserError
from trainer.run_dir import directory, manifest, temporary_folder
from trainer.run_dir.bucket_connection import connect, local_folder, patiently
from trainer.run_dir.mirror import ORIGIN, Mirror
from trainer.run_dir.mirror_download import download
from trainer.run_dir.mirror_thread import MirrorThread
from trainer.system import typed_json
from trainer.system.atomic_file import move_atomic, write_json
from trainer.system.output import log
from trainer.system.typed_json import fields, integer, text

_ORIGIN = fields({"url": text, "owner": text, "generation": integer(1), "run": text})


@contextlib.contextmanager
def owned(url: BucketUrl, cache_dir: str | None, seconds: float) -> Iterator[pathlib.Path]:
    """Yields the local directory of the run at `url`, whose files are copied to the bucket.

    Args:
      url: URL of the run.
      cache_dir: folder for local directories; None for the user's cache.
      seconds: duration of the lease.

    Raises:
      UserError: if the bucket cannot be used, another process trains the run, or the run's files
        are damaged.
      NotSavedError: if the last state cannot be copied to the bucket.
    """
    path = local_folder(url, cache_dir)
    path.parent.mkdir(parents=True, exist_ok=True)
    if (path / "lock").exists() and directory.is_held(path):
        raise UserError(
            f"--model_dir={url} is in use by a process on this machine, in {path}.\n"
            "Wait for it, stop it, or name another folder."
        )
    objects = connect(url)
    patiently(url, lambda: buckets.check_conditions(objects))
    origin = _origin(path, url)

    def ended(owner: str) -> bool:  # No process has locked `path`, in which this owner worked.
        return origin is not None and origin["owner"] == owner

    lease = patiently(url, lambda: leases.take(objects, str(url), seconds, ended))
    try:
        claim = lease.claim
        same = origin is not None and origin["run"] == claim.run
        newest = origin["generation"] if origin and same else None
        patiently(url, lambda: _restore(url, objects, path, newest))
        path.mkdir(exist_ok=True)
        owner = {"run": claim.run, "owner": claim.owner, "generation": claim.generation}
        write_json(path / ORIGIN, {"url": str(url), **owner})
    except BaseException:
        lease.release()
        raise
    log(f"the run is in {path}, and is copied to {url}")
    thread = MirrorThread(Mirror(objects, path, claim.generation), path, lease, str(url))
    try:
        yield path
    except BaseException:
        with contextlib.suppress(Exception):
            thread.close()
        raise
    thread.close()


def _origin(path: pathlib.Path, url: BucketUrl) -> dict | None:
    """Returns the record of the last owner in `path`; None if it is missing or damaged."""
    try:
        origin = typed_json.read_existing(path / ORIGIN, _ORIGIN)
    except (typed_json.DamagedError, OSError) as error:
        log(f"{error}; the run is restored from the bucket")
        return None
    return origin if origin and origin["url"] == str(url) else None


def _restore(url: BucketUrl, objects: Objects, path: pathlib.Path, newest: int | None) -> None:
    """Makes `path` the newest state of the run, from the bucket if that has a newer one.

    `newest` is the generation of the run's last owner in `path`; None if the run had no owner here.
    """
    state = manifest.newest(objects, str(url))
    local = (path / "flags.txt").exists()
    if local and newest is not None and (state is None or newest >= state.generation):
        return  # The last owner worked in `path`, so that it has at least the bucket's state.
    if state is None:
        if local:
            raise UserError(
                f"{url} holds no run, but this machine has a copy of a run that was there: {path}."
                f"\nRemove {path} to start a new run, or name another folder."
            )
        return
    if local:
        log(f"{path} is older than the run in {url}, and is replaced")
    with temporary_folder.beside(path) as work:
        new = work / "new"
        new.mkdir()
        state = download(objects, str(url), new) or state
        move_atomic(new, path, aside=work / "old")
    log(f"restored the run from {url}: {len(state.files)} files")
