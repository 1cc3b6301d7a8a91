"""CSV files are read as spreadsheets write them; errors name the line."""

import os

import pytest

from trainer.data import csv_table
from trainer.errors import UserError

ROWS = [(2, ["a b.jpg", "cat"]), (3, ["c,d.jpg", 'the "big" dog'])]


@pytest.mark.parametrize(
    "content",
    [
        b'path,label\na b.jpg,cat\n"c,d.jpg","the ""big"" dog"\n',
        b'path,label\r\na b.jpg,cat\r\n"c,d.jpg","the ""big"" dog"\r\n',
        b'\xef\xbb\xbfpath,label\r\na b.jpg,cat\r\n"c,d.jpg","the ""big"" dog"',
        b'path;label\na b.jpg;cat\nc,d.jpg;"the ""big"" dog"\n',
        b'path\tlabel\na b.jpg\tcat\nc,d.jpg\t"the ""big"" dog"\n',
        b' path , label\na b.jpg, cat\n"c,d.jpg", "the ""big"" dog"\n\n,\n',
    ],
)
def test_tables_of_any_spelling_are_equal(tmp_path, content):
    path = tmp_path / "labels.csv"
    path.write_bytes(content)
    table = csv_table.read(str(path))
    assert (table.header, list(table.rows)) == (["path", "label"], ROWS)


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_blank_lines_before_the_header_are_skipped(tmp_path, line_end):
    path = tmp_path / "labels.csv"
    path.write_text(line_end.join(["", "", "path;label", "a,b.jpg;cat"]), newline="")
    table = csv_table.read(str(path))
    assert (table.header, list(table.rows)) == (["path", "label"], [(4, ["a,b.jpg", "cat"])])


def test_lines_are_counted_across_quoted_line_breaks(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text('path,label\n"a\nb",cat\n\nc,dog\n')
    assert [line for line, _ in csv_table.read(str(path)).rows] == [2, 5]


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "has no lines"),
        (b"path,label\n\n", "has a header and no rows"),
        (b"path,label\na,b\nc\n", "line 3: it has 1 values, and the header has 2"),
        (b"path,label\na,b\nc,d,e\n", "line 3: it has 3 values, and the header has 2"),
        (b'path,label\na,b\n"c,d\ne,f\n', "line 3: it is not CSV: unexpected end of data"),
        (b'path,label\n"a"b,c\n', "line 2: it is not CSV"),
        (b"path,label\na,b\n\xe9,d\n", "line 3: it is not UTF-8"),
        ("path,label\na,b\n".encode("utf-16"), "line 1: it is not UTF-8"),
        (b"path,label\na\0,b\n", "line 2: it has a zero byte"),
    ],
)
def test_mistakes_are_named_with_their_line(tmp_path, content, message):
    path = tmp_path / "labels.csv"
    path.write_bytes(content)
    with pytest.raises(UserError) as refused:
        csv_table.read(str(path))
    assert f"{path} {message}" in str(refused.value)
    assert len(str(refused.value).splitlines()) == 2


def test_files_that_cannot_be_read_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"none\.csv cannot be read: No such file"):
        csv_table.read(str(tmp_path / "none.csv"))
    os.mkfifo(tmp_path / "fifo.csv")
    with pytest.raises(UserError, match="it is a FIFO, not a regular file"):
        csv_table.read(str(tmp_path / "fifo.csv"))


def test_columns_are_found_by_name(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("Label,FILE,x\na,b,c\n")
    table = csv_table.read(str(path))
    assert table.column("path", ["path", "file"]) == 1
    assert table.column("split", ["split"], needed=False) is None
    with pytest.raises(UserError, match=r"line 1: no column holds the split; .* Label, FILE, x"):
        table.column("split", ["split"])
    with pytest.raises(UserError, match=r"hold the label: Label and x\.\nRename"):
        table.column("label", ["label", "x"])
