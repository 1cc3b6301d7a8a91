"""Opens a run whose --model_dir is the URL of a bucket: as a local directory with a copy there.

A command that trains owns the run: it holds the run's lease, restores the run from the bucket if
this machine does not have its newest state, and copies each new state to the bucket.
"""

import contextlib
import dataclasses
import functools
import pathlib
import socket
import threading
from collections.abc import Callable, Iterator

from trainer.buckets import lease as leases
from trainer.buckets import objects as buckets
from trainer.buckets.lease import Claim, Lease
from trainer.buckets.objects import Objects
from trainer.buckets.url import BucketUrl
from trainer.errors import ExitError, TryAgainError, UserError
from trainer.run_dir import manifest, temporary_folder
from trainer.run_dir.bucket_connection import connect, local_disk, local_folder, patiently
from trainer.run_dir.mirror import ORIGIN, Mirror
from trainer.run_dir.mirror_download import download
from trainer.run_dir.mirror_thread import MirrorThread
from trainer.system import file_lock, stop_signals, typed_json
from trainer.system.atomic_file import move_atomic, remove, write_json
from trainer.system.output import log
from trainer.system.regular_file import opener
from trainer.system.typed_json import fields, integer, text

_ORIGIN = fields({"url": text, "owner": text, "generation": integer(1), "run": text})


@dataclasses.dataclass(frozen=True)
class OwnedRun:
    """A run in a bucket that this process owns.

    Attributes:
      path: the run's local directory.
      lost: returns how this process lost the run to another process; "" if it still owns the run.
      watched: makes a context as `owned`'s argument does. After a signal in this context, the last
        copy waits less long for a bucket that does not answer.
    """

    path: pathlib.Path
    lost: Callable[[], str]
    watched: stop_signals.Watched


@contextlib.contextmanager
def owned(
    url: BucketUrl,
    cache_dir: str | None,
    seconds: float,
    watched: stop_signals.Watched = stop_signals.watched,
) -> Iterator[OwnedRun]:
    """Yields the run at `url`, whose local files are copied to the bucket.

    Args:
      url: URL of the run.
      cache_dir: folder for local directories; None for the user's cache.
      seconds: duration of the lease.
      watched: makes a context in which a function reports whether a signal asks to stop.

    Raises:
      UserError: if the bucket or the local folder cannot be used, or the run's files are damaged.
      TryAgainError: if the bucket does not answer, another process owns the run, or the last state
        cannot be copied to the bucket.
    """
    path = local_folder(url, cache_dir)
    objects = connect(url)
    with contextlib.ExitStack() as stack:
        with local_disk(path):
            stack.enter_context(_locked(url, path))
            lease, complete = _take(url, objects, path, seconds)
        log(f"the run is in {path}, and is copied to {url}")
        mirror = Mirror(objects, path, lease.claim.generation, keep_lower=not complete)
        thread = MirrorThread(mirror, path, lease, str(url))
        signalled = threading.Event()

        @contextlib.contextmanager
        def remembered() -> Iterator[Callable[[], bool]]:
            with watched() as stopped:
                try:
                    yield stopped
                finally:
                    if stopped():
                        signalled.set()

        try:
            yield OwnedRun(path, lease.lost, remembered)
        except BaseException:
            try:
                thread.close(lambda: True)
            except ExitError as error:
                log(str(error))  # The first error decides the status.
            raise
        with watched() as stopped:
            stopped()  # From here on, a first signal does not end the process at once.
            thread.close(lambda: signalled.is_set() or stopped())


@contextlib.contextmanager
def _locked(url: BucketUrl, path: pathlib.Path) -> Iterator[None]:
    """Locks the run on this machine, so that no other process replaces `path` meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(_lock_file(path), "ab", opener=opener) as lock:
        if not file_lock.take(lock):
            raise TryAgainError(
                f"{leases.in_use(str(url))} a process on this machine, in {path}.\n"
                "Wait for it, stop it, or name another folder."
            )
        yield


def _take(
    url: BucketUrl, objects: Objects, path: pathlib.Path, seconds: float
) -> tuple[Lease, bool]:
    """Takes the lease of the run, and makes `path` the run's newest state.

    Returns:
      The lease; and whether `path` has all files of that state.
    """
    patiently(url, lambda: buckets.check_conditions(objects))
    origin = _origin(path, url)

    def ended(claim: Claim) -> bool:
        # This process holds the lock that the owner held in `path`.
        return _was_here(claim, origin)

    unused = functools.partial(manifest.unused_generation, objects, str(url))
    lease = patiently(url, lambda: leases.take(objects, str(url), seconds, ended, unused))
    try:
        claim = lease.claim
        same = origin is not None and origin["run"] == claim.run
        newest = origin["generation"] if origin and same else None
        complete = patiently(url, lambda: _restore(url, objects, path, newest))
        path.mkdir(exist_ok=True)
        owner = {"run": claim.run, "owner": claim.owner, "generation": claim.generation}
        write_json(path / ORIGIN, {"url": str(url), **owner})
    except BaseException:
        lease.release()
        raise
    return lease, complete


def has_ended(url: BucketUrl, cache_dir: str | None, claim: Claim) -> bool:
    """Returns whether the process that holds `claim` was on this machine and has surely ended."""
    path = local_folder(url, cache_dir)
    if not _was_here(claim, _origin(path, url)):
        return False
    with contextlib.suppress(OSError), open(_lock_file(path), "rb", opener=opener) as lock:
        return file_lock.take(lock, shared=True)
    return False


def _was_here(claim: Claim, origin: dict | None) -> bool:
    """Returns whether the owner in `claim` used the local directory that has `origin`."""
    here = claim.process.endswith(f" on {socket.gethostname()}")
    return here and origin is not None and origin["owner"] == claim.owner


def _lock_file(path: pathlib.Path) -> pathlib.Path:
    return path.with_name(f"{path.name}.lock")


def _origin(path: pathlib.Path, url: BucketUrl) -> dict | None:
    """Returns the record of the last owner in `path`; None if it is missing or damaged."""
    try:
        origin = typed_json.read_existing(path / ORIGIN, _ORIGIN)
    except (typed_json.DamagedError, OSError) as error:
        log(f"{error}; the run is restored from the bucket")
        return None
    return origin if origin and origin["url"] == str(url) else None


def _restore(url: BucketUrl, objects: Objects, path: pathlib.Path, newest: int | None) -> bool:
    """Makes `path` the newest state of the run, from the bucket if that has a newer one.

    Args:
      url: URL of the run.
      objects: objects of the run.
      path: the run's local directory.
      newest: generation of the run's last owner in `path`; None if the run had no owner here.

    Returns:
      Whether `path` has all files of that state.
    """
    state = manifest.newest(objects, str(url))
    local = (path / "flags.txt").exists()
    if local and newest is not None and (state is None or newest >= state.generation):
        return True  # The last owner worked in `path`, so that it has at least the bucket's state.
    if state is None:
        if local:
            raise UserError(
                f"{url} holds no run, but this machine has a copy of a run that was there: {path}."
                f"\nRemove {path} to start a new run, or name another folder."
            )
        return True
    with temporary_folder.beside(path) as work:
        new = work / "new"
        new.mkdir()
        state, left_out = download(objects, str(url), new) or (state, [])
        if local:
            _put_aside(url, path)
        move_atomic(new, path, aside=work / "old")
    log(f"restored the run from {url}: {len(state.files)} files")
    return not left_out


def _put_aside(url: BucketUrl, path: pathlib.Path) -> None:
    """Renames the older local run, because it may have checkpoints that the bucket never had."""
    aside = path.with_name(f"{path.name}.replaced")
    remove(aside)
    path.rename(aside)
    log(f"the run in {url} is newer than the one in {path}, which is now {aside}")
