"""Reads a CSV file with a header; an error about a line names the file and the line.

The file may have a byte order mark, CRLF, quoted values, and semicolons or tabs in place of commas,
because spreadsheets write such files. Lines without values are skipped.
"""

import csv
import dataclasses
import io
from collections.abc import Sequence

from trainer.data.class_names import few, printable
from trainer.errors import UserError
from trainer.system.regular_file import read_regular

_MOST_BYTES = 2**30  # Enough for 10 million lines of 100 bytes.
_DELIMITERS = ",;\t"


@dataclasses.dataclass(frozen=True)
class Table:
    """Content of a CSV file: the names of the columns, and rows of values.

    Attributes:
      path: path of the file.
      header: names of the columns.
      rows: for each row, the number of its line in the file, counted from 1, and its values.
    """

    path: str
    header: Sequence[str]
    rows: Sequence[tuple[int, Sequence[str]]]

    def error(self, line: int, problem: str, remedy: str) -> UserError:
        """Returns an error about a line."""
        return UserError(f"{printable(self.path)} line {line}: {problem}.\n{remedy}")

    def column(self, what: str, names: Sequence[str], *, needed: bool = True) -> int | None:
        """Returns the index of the only column with one of the `names`, which are in lower case.

        Capital letters in the header do not matter. `what` describes the column in messages. If
        `needed` is False and no column matches, the function returns None.

        Raises:
          UserError: if several columns match, or none matches and `needed` is True.
        """
        found = [i for i, name in enumerate(self.header) if name.lower() in names]
        if len(found) > 1:
            both = " and ".join(self.header[i] for i in found)
            raise self.error(
                1,
                f"several columns could hold the {what}: {printable(both)}",
                "Rename all but one.",
            )
        if not found and needed:
            raise self.error(
                1,
                f"no column holds the {what}; the columns are {few(self.header)}",
                f"Give a column the name {names[0]}; {few(names[1:])} are accepted too."
                if names[1:]
                else f"Give a column the name {names[0]}.",
            )
        return found[0] if found else None


def read(path: str) -> Table:
    """Reads a CSV file.

    Raises:
      UserError: if the file cannot be read, is not UTF-8, has a zero byte, or lacks a header or
        rows; if a line has unbalanced quotes or another number of values than the header.
    """
    text = _text(path)
    delimiter = max(_DELIMITERS, key=text.lstrip("\r\n").partition("\n")[0].count)
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True
    )
    rows, last = [], 0
    try:
        for values in reader:
            line, last = last + 1, reader.line_num  # A value in quotes may have several lines.
            if any(values):
                rows.append((line, values))
    except csv.Error as error:
        raise Table(path, (), ()).error(
            last + 1,
            f"it is not CSV: {error}",
            'Close each value in quotes, and write a quote in a value twice ("").',
        ) from error
    if len(rows) < 2:
        raise UserError(
            f"{printable(path)} has {'a header and no rows' if rows else 'no lines'}.\n"
            "Write a line with the names of the columns, and below it the rows."
        )
    (_, header), *others = rows
    table = Table(path, [name.strip() for name in header], others)
    for line, values in others:
        if len(values) != len(header):
            raise table.error(
                line,
                f"it has {len(values)} values, and the header has {len(header)}",
                "Put a value with a comma in quotes, and leave no value out.",
            )
    return table


def _text(path: str) -> str:
    try:
        content = read_regular(path, _MOST_BYTES)
    except OSError as error:
        raise UserError(
            f"{printable(path)} cannot be read: {error.strerror}.\nName a CSV file that exists."
        ) from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise Table(path, (), ()).error(
            line, "it is not UTF-8", "Save the file as CSV in UTF-8."
        ) from error
    if (at := text.find("\0")) >= 0:
        line = text.count("\n", 0, at) + 1
        raise Table(path, (), ()).error(line, "it has a zero byte", "Remove the byte.")
    return text
