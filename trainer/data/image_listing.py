"""Lists the images of --dataset=image_folder:PATH or image_csv:PATH, without TensorFlow."""

import os

from trainer.data import folder_layout, image_csv, image_folder
from trainer.data.bucket import open_folders
from trainer.data.image_files import Files
from trainer.errors import UserError

_FOLDER, _CSV = folder_layout.PREFIX, image_csv.PREFIX


def is_listed(dataset: str) -> bool:
    """Returns whether a dataset is an image folder or a CSV file, instead of a TFDS set."""
    return dataset.startswith((_FOLDER, _CSV))


def refuse_path(dataset: str) -> None:
    """Refuses a dataset that is the path of images without the prefix.

    Raises:
      UserError: if `dataset` ends as a CSV file does, or is a folder.
    """
    if dataset.lower().endswith(".csv"):
        raise UserError(
            f"--dataset={dataset} is not a TFDS set.\n"
            f"For the images that a CSV file lists, write --dataset={_CSV}{dataset}."
        )
    if os.path.isdir(dataset):
        raise UserError(
            f"--dataset={dataset} is a folder here, not a TFDS set.\n"
            f"For the images in it, write --dataset={_FOLDER}{dataset}."
        )


def _path(dataset: str) -> tuple[bool, str]:
    """Returns whether a dataset is a CSV file, and the local path of the file or folder."""
    if dataset.startswith(_CSV):
        return True, dataset.removeprefix(_CSV)
    return False, open_folders.local_images(dataset.removeprefix(_FOLDER))


@open_folders.showing_urls()
def list_files(dataset: str, split: str) -> Files:
    """Lists the files of a split in TFDS's syntax, such as train, train[:90%] or train+extra.

    Raises:
      UserError: if the split does not exist, or cannot be used.
    """
    is_csv, path = _path(dataset)
    return image_csv.list_files(path, split) if is_csv else image_folder.list_files(path, split)


@open_folders.showing_urls()
def classes(dataset: str, split: str) -> list[str]:
    """Returns the sorted class names of a split.

    Raises:
      UserError: if the split does not exist, or cannot be used.
    """
    is_csv, path = _path(dataset)
    return image_csv.classes(path, split) if is_csv else image_folder.classes(path, split)


@open_folders.showing_urls()
def count_shared(dataset: str, first: str, second: str) -> int:
    """Returns the number of files that are in both splits.

    Raises:
      UserError: if a split does not exist, or cannot be used.
    """
    is_csv, path = _path(dataset)
    count = image_csv.count_shared if is_csv else image_folder.count_shared
    return count(path, first, second)


@open_folders.showing_urls()
def evaluation_split(dataset: str) -> str:
    """Returns the first of the splits val, validation and test that exists.

    Raises:
      UserError: if none of the three exists, or the dataset cannot be used.
    """
    is_csv, path = _path(dataset)
    find = image_csv.evaluation_split if is_csv else folder_layout.evaluation_split
    return find(path)


@open_folders.showing_urls()
def note(dataset: str, split: str) -> str:
    """Returns a line that says how the program reads a dataset, or "" if there is nothing to say.

    For a CSV file, the line names the columns in use. If a hash made the splits of a CSV file or of
    an image folder, the line also says how.

    Raises:
      UserError: if the CSV file or the image folder cannot be used.
    """
    if not is_listed(dataset):
        return ""
    is_csv, path = _path(dataset)
    return image_csv.note(path) if is_csv else image_folder.note(path, split)
