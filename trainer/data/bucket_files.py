"""Tells what a run must fetch from a bucket before its examples are on the local disk."""

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Iterable

from trainer.config.flags import Config
from trainer.data import image_listing
from trainer.data.bucket import open_folders
from trainer.data.bucket.folder import BucketFolder, readable_size
from trainer.data.bucket.placeholders import is_placeholder
from trainer.data.tfds.splits import count_split
from trainer.errors import UserError
from trainer.system.output import log

_LISTED = 1000  # Objects that one request lists.


@dataclasses.dataclass(frozen=True)
class BucketFiles:
    """Files of a run that are in a bucket; `plan --format=json` prints the attributes.

    Attributes:
      url: URL of the folder.
      files: number of files of the training and evaluation splits.
      bytes: size of these files, which the local disk must hold.
      missing_files: number of files that are not on the local disk yet.
      missing_bytes: size of these files, which the first epoch fetches.
      requests: number of requests for the listing and for the missing files. Before a TFDS file has
        arrived, each of its records that is needed takes a request more.
      local_folder: folder for the files.
      free_bytes: free space on the disk of that folder.
    """

    url: str
    files: int
    bytes: int
    missing_files: int
    missing_bytes: int
    requests: int
    local_folder: str
    free_bytes: int

    def line(self) -> str:
        """Returns the attributes as a sentence."""
        size, free = readable_size(self.bytes), readable_size(self.free_bytes)
        missing, lacks = readable_size(self.missing_bytes), self.missing_bytes > self.free_bytes
        return (
            f"data in {self.url}: {self.files:,} files, {size}; the first epoch fetches {missing} "
            f"in {self.requests:,} requests, and later ones nothing. They are kept in "
            f"{self.local_folder}, where {free} are free{': too little' if lacks else ''}"
        )


def find(config: Config) -> BucketFiles | None:
    """Returns the files of the run of `config` that are in a bucket; None if its data are local.

    Raises:
      UserError: if the bucket cannot be used, or a split does not exist.
      TryAgainError: if the bucket does not answer.
    """
    paths = _of_images(config) if image_listing.is_listed(config.dataset) else _of_set(config)
    folder = open_folders.of(paths[0]) if paths else None
    return _counted(folder, paths) if folder else None


def _of_images(config: Config) -> list[str]:
    if not open_folders.is_remote(config.dataset.partition(":")[2]):
        return []
    splits = [config.train_split]
    with contextlib.suppress(UserError):  # A plan needs no evaluation split.
        splits.append(config.eval_split or image_listing.evaluation_split(config.dataset))
    listed = [image_listing.list_files(config.dataset, each) for each in splits]
    return _distinct(files.path(at) for files in listed for at in range(len(files)))


def _of_set(config: Config) -> list[str]:
    if not open_folders.is_remote(config.data_dir):
        return []
    # This import takes 0.4 s, and local sets do not need it.
    from trainer.data.tfds import prepare, set_files

    builder = prepare.find_builder(config.dataset, config.data_dir)
    if not prepare.is_prepared(builder):
        log(f"{config.dataset} is not prepared in {config.data_dir}: train refuses it")
        return []
    formats = set_files.formats(builder)
    indexed = set_files.ARRAY_RECORD in formats
    found = set_files.ARRAY_RECORD if indexed else set_files.TFRECORD
    count_split(builder.info.splits, config.train_split, config.dataset)
    wanted = [config.train_split]
    with contextlib.suppress(UserError):  # A plan needs no evaluation split.
        count_split(builder.info.splits, config.eval_split or "test", config.dataset)
        wanted.append(config.eval_split or "test")
    pieces = (piece for each in wanted for piece in set_files.pieces(builder, each, found))
    return _distinct(path for piece in pieces if os.path.exists(path := str(piece.filename)))


def _distinct(paths: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(paths))


def _counted(folder: BucketFolder, paths: list[str]) -> BucketFiles:
    missing = [path for path in paths if is_placeholder(path)]
    return BucketFiles(
        url=str(folder.url),
        files=len(paths),
        bytes=sum(map(folder.size, paths)),
        missing_files=len(missing),
        missing_bytes=sum(map(folder.size, missing)),
        requests=-(-len(folder.source.listing) // _LISTED) + len(missing),
        local_folder=str(folder.path),
        free_bytes=shutil.disk_usage(folder.path).free,
    )
