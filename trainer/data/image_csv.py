"""Lists the images of a CSV file, which has columns of paths, labels and, optionally, splits.

Paths are relative to the folder of the CSV file. Without a column of splits, a hash of the paths
divides the images into the splits train and val. This module does not import TensorFlow, because
the import would delay the command `plan`, which counts examples, by seconds.
"""

import collections
import functools
import os
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from trainer.data import csv_table, image_files
from trainer.data.class_names import few, printable
from trainer.data.csv_table import Table
from trainer.data.image_files import EVALUATION_SPLITS, Files, path_hash
from trainer.errors import UserError

PREFIX = "image_csv:"
_PATHS = ("path", "file", "filename", "file_name", "filepath", "file_path", "image", "image_path")
_LABELS = ("label", "class", "class_name", "category")
_SPLITS = ("split", "subset", "set")
_TWICE = "row given twice"


class _Row(NamedTuple):
    """A row of the table; `path` has no empty parts and no parts that are a single dot."""

    line: int
    path: str
    label: str
    split: str


def classes(path: str, split: str) -> list[str]:
    """Returns the sorted class names of a split; a label is an index into this list.

    Raises:
      UserError: if `list_files` raises it.
    """
    return sorted({*list_files(path, split).class_names})


def list_files(path: str, split: str) -> Files:
    """Lists the files of a split in TFDS's syntax, such as train, train[:90%] or train+extra.

    Raises:
      UserError: if the CSV file cannot be used, or the split does not exist.
    """
    return image_files.select(_parts(path)[0], split, PREFIX + path)


def count_shared(path: str, first: str, second: str) -> int:
    """Returns the number of files that are in both splits.

    Raises:
      UserError: if the CSV file cannot be used, or a split does not exist.
    """
    parts, _ = _parts(path)

    def files(split: str) -> set[tuple[int, bytes]]:
        found = image_files.select(parts, split, PREFIX + path)
        # `folders` repeats the CSV file's folder and "/" for each piece of the split. So an even
        # index in `folder_of` means the CSV file's folder, and an odd index means "/".
        return set(zip((found.folder_of % 2).tolist(), found.names.tolist(), strict=True))

    return len(files(first) & files(second))


def evaluation_split(path: str) -> str:
    """Returns the first of the splits val, validation and test that exists.

    Raises:
      UserError: if none of the three exists, or the CSV file cannot be used.
    """
    parts, _ = _parts(path)
    for name in EVALUATION_SPLITS:
        if name in parts:
            return name
    raise UserError(
        f"{path} has no split named val, validation or test; it has {few(list(parts))}.\n"
        "Set --eval_split, for example --train_split=train[:90%] --eval_split=train[90%:]."
    )


def note(path: str) -> str:
    """Returns a line that names the columns in use.

    If the file has no column of splits, the line also says how a hash made the splits.

    Raises:
      UserError: if the CSV file cannot be used.
    """
    parts, names = _parts(path)
    line = f"{path}: paths are in column {printable(names[0])}, labels in {printable(names[1])}"
    if names[2]:
        return f"{line}, splits in {printable(names[2])}"
    return f"{line}; without a column named split, {image_files.division(parts)}"


def _parts(path: str) -> tuple[dict[str, Files], list[str]]:
    """Returns the files of each split, by the split's name, and the names of three columns.

    The three columns hold the paths, the labels and the splits. The last column's name is "" if the
    file lacks a column of splits. A command calls this function several times, so the result is
    cached as long as the file does not change.
    """
    try:
        status = os.stat(path)
    except OSError:
        return _read_parts(path, None)  # `_read_parts` reports the problem.
    return _read_parts(path, (status.st_ino, status.st_mtime_ns, status.st_size))


@functools.lru_cache(maxsize=1)
def _read_parts(path: str, version: tuple[int, ...] | None) -> tuple[dict[str, Files], list[str]]:
    del version  # The argument is only a part of the cache's key.
    table = csv_table.read(path)
    columns = (
        table.column("path", _PATHS),
        table.column("label", _LABELS),
        table.column("split", _SPLITS, needed=False),
    )
    names = ["" if at is None else table.header[at] for at in columns]
    rows, twice = _checked(table, columns)
    folder = os.path.dirname(path) or "."
    _check_exist(table, rows, folder)
    if not names[2]:
        return image_files.divided(*_files(rows, folder, twice)), names
    of_split: dict[str, list[_Row]] = {}
    for row in rows:
        of_split.setdefault(row.split, []).append(row)
    # The number of repeated rows is reported once, with the first split.
    left_out = [twice] + [0] * len(of_split)
    return {
        name: _files(own, folder, number)[0]
        for (name, own), number in zip(of_split.items(), left_out, strict=False)
    }, names


def _checked(table: Table, columns: Sequence[int | None]) -> tuple[list[_Row], int]:
    """Returns the rows, with each path once per split, and the number of rows left out.

    Raises:
      UserError: if a value is empty, or a path has two labels.
    """
    path_at, label_at, split_at = columns
    assert path_at is not None
    assert label_at is not None
    first: dict[str, _Row] = {}
    rows: dict[tuple[str, str], _Row] = {}
    twice = 0
    for line, values in table.rows:
        split = "" if split_at is None else values[split_at].strip()
        row = _Row(line, _plain(values[path_at]), values[label_at].strip(), split)
        empty = (not row.path, not row.label, not split and split_at is not None)
        for at, is_empty in zip(columns, empty, strict=True):
            if is_empty and at is not None:
                problem = f"{printable(table.header[at])} is empty"
                raise table.error(line, problem, "Give it a value, or delete the line.")
        other = first.setdefault(row.path, row)
        if other.label != row.label:
            raise table.error(
                line,
                f"{printable(row.path)} has the label {printable(row.label)}, and "
                f"{printable(other.label)} in line {other.line}",
                "Delete one of the lines, because a picture has one label.",
            )
        if rows.setdefault((row.path, split), row) is not row:
            twice += 1
    return list(rows.values()), twice


def _plain(path: str) -> str:
    """Returns a path without empty parts and single dots: ./a//b becomes a/b."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    return ("/" if path.startswith("/") else "") + "/".join(parts)


def _check_exist(table: Table, rows: Iterable[_Row], folder: str) -> None:
    """Raises a UserError if a row's file does not exist; for speed, it lists each folder once."""
    of_folder: dict[str, list[_Row]] = {}
    for row in rows:
        of_folder.setdefault(os.path.dirname(row.path), []).append(row)
    missing = []
    for name, own in of_folder.items():
        path = os.path.join(folder, name)
        try:
            existing = {*os.listdir(path)}
        except PermissionError:  # If a folder cannot be listed, its files may still be readable.
            existing = {os.path.basename(row.path) for row in own}
        except OSError:
            existing = set()
        missing += [row for row in own if os.path.basename(row.path) not in existing]
    if missing:
        line, path, *_ = min(missing)
        more = f", and {len(missing) - 1:,} more" if len(missing) > 1 else ""
        verb = "do" if more else "does"
        raise table.error(
            line,
            f"{printable(path)}{more} {verb} not exist in {printable(os.path.abspath(folder))}",
            "Correct the paths, which start from the CSV file's folder, or delete the lines.",
        )


def _files(rows: Sequence[_Row], folder: str, twice: int) -> tuple[Files, np.ndarray]:
    """Returns the files of `rows`, sorted by a hash of their path, and their hashes, uint64 [n].

    `twice` is the number of repeated rows that were left out.
    """
    class_names = sorted({row.label for row in rows})
    place_of = {name: place for place, name in enumerate(class_names)}
    paths = [os.fsencode(row.path) for row in rows]
    hashes = np.array([path_hash(path) for path in paths], np.uint64)
    order = np.argsort(hashes, kind="stable")
    files = Files(
        [folder, "/"],
        np.array([path.startswith(b"/") for path in paths], np.int32)[order],
        np.array([path.lstrip(b"/") for path in paths], np.bytes_)[order],
        class_names,
        np.array([place_of[row.label] for row in rows], np.int32)[order],
        collections.Counter({_TWICE: twice} if twice else {}),
    )
    return files, hashes[order]
