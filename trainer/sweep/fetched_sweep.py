"""Writes a local copy of a sweep that is in a bucket."""

import pathlib

from trainer.buckets.objects import MissingError, Objects
from trainer.buckets.url import BucketUrl
from trainer.errors import UserError
from trainer.run_dir import bucket_reading, result
from trainer.run_dir.bucket_connection import at_once, connect, patiently
from trainer.sweep import outcomes
from trainer.sweep.outcomes import FILE, Content, Outcome, decoded
from trainer.sweep.sweep_folder import write_row
from trainer.system.output import log
from trainer.system.typed_json import WrongError


def fetch(url: BucketUrl, folder: pathlib.Path) -> int | None:
    """Makes `folder` a copy of the sweep at `url`, or brings an earlier copy up to date.

    The copy has sweep.json, the run of each point that has one in the bucket, and the rows of
    TensorBoard's HParams table.

    Returns:
      The number of runs; None if `url` is not a sweep, in which case nothing is written.

    Raises:
      UserError: if the bucket cannot be used; or if `folder` exists and is not an earlier copy of
        this sweep, cannot be written, or has a run that was trained after it was fetched.
      TryAgainError: if the bucket does not answer.
    """
    objects = connect(url)
    content = patiently(url, lambda: _read(objects, url))
    if content is None:
        return None
    ends = content.outcomes()
    with bucket_reading.writing(folder):
        bucket_reading.check_is_copy(folder, url)
        folder.mkdir(parents=True, exist_ok=True)
        bucket_reading.mark_as_copy(folder, url)

        def fetch_point(name: str) -> bool:
            run = url.below(name)
            bucket_reading.check_is_copy(folder / name, run)
            try:
                found = bucket_reading.fetch(run, folder / name, if_exists=True)
            except UserError as error:
                log(f"left out: {str(error).partition(chr(10))[0]}")
                return False
            if found is not None or ends[name].failed:
                _write_row(folder / name, run, content, ends[name])
            return found is not None

        count = sum(at_once(fetch_point, content.entries))
        outcomes.replace(folder, content)
    return count


def _read(objects: Objects, url: BucketUrl) -> Content | None:
    """Returns the content of sweep.json; None if the object is missing."""
    try:
        content = decoded(objects.read(FILE)[0])
        for name in content.entries:
            # The bucket must not make this program write outside of the copy.
            if name in ("", ".", "..") or "/" in name or "\0" in name:
                raise WrongError(f"has the folder {name[:100]!r}")
    except MissingError:
        return None
    except WrongError as error:
        raise UserError(
            f"{url}/{FILE} is damaged: {error}.\n"
            "Call the sweep again, which makes a new one, or fetch each run by its URL."
        ) from error
    return content


def _write_row(path: pathlib.Path, url: BucketUrl, content: Content, end: Outcome) -> None:
    """Writes the row of the HParams table for the point with the folder `path`."""
    try:
        ended = result.ended(path)
    except UserError:  # A report names the damage.
        ended = None
    if ended or end.failed:
        path.mkdir(exist_ok=True)
        bucket_reading.mark_as_copy(path, url)
        write_row(path, content.entries[path.name]["flags"], end, ended)
