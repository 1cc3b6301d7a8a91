"""Finds pictures in files and folders, and says what is left out."""

import os

import pytest

from trainer.data.picture_paths import find
from trainer.errors import UserError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Returns a folder with pictures, other files, a folder below, and a link back to itself."""
    monkeypatch.chdir(tmp_path)
    for name in ("b.jpg", "a.PNG", "below/c.webp", "below/deeper/d.gif", "notes.txt", ".e.jpg"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    os.symlink("..", tmp_path / "photos" / "below" / "up")
    return tmp_path / "photos"


def test_a_folder_gives_all_pictures_below_it_and_says_what_is_left_out(folder):
    paths, said = find(["photos"])
    assert paths == [
        *(b"photos/a.PNG", b"photos/b.jpg", b"photos/below/c.webp", b"photos/below/deeper/d.gif")
    ]
    assert said == ("4 pictures; 3 files left out (.txt 1, folder already listed 1, hidden 1)")


def test_files_keep_their_order_and_need_no_suffix(folder):
    given = ["photos/notes.txt", "photos/b.jpg", "photos/.e.jpg"]
    assert find(given) == ([name.encode() for name in given], "")


def test_a_picture_that_is_named_twice_is_taken_once(folder):
    paths, said = find(["photos/b.jpg", "photos/below/deeper", "photos/b.jpg"])
    assert paths == [b"photos/b.jpg", b"photos/below/deeper/d.gif"]
    assert said == "2 pictures; 1 file left out (named twice 1)"


def test_names_may_be_any_bytes(folder):
    name = b"photos/below/caf\xe9\n.jpg"
    open(name, "w").close()
    assert find(["photos/below/deeper", os.fsdecode(name)])[0][1] == name
    assert name in find(["photos"])[0]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("photos/x.jpg", r"photos/x.jpg cannot be read: No such file or directory.\nName pictures"),
        ("empty", r"empty has no .jpg, .*file \(it holds nothing\).\nName a folder with pictures"),
        ("texts", r"texts has no .jpg, .*file \(it holds .txt 1\)"),
        ("photos/lost.jpg", "lost.jpg cannot be read: No such file"),
        ("photos/b.jpg/c.jpg", "b.jpg/c.jpg cannot be read: Not a directory"),
    ],
)
def test_what_is_not_there_is_rejected(folder, given, message):
    (folder.parent / "empty").mkdir()
    (folder.parent / "texts").mkdir()
    (folder.parent / "texts" / "a.txt").touch()
    os.symlink("nowhere", folder / "lost.jpg")
    with pytest.raises(UserError, match=message) as error:
        find(["photos/b.jpg", given])
    assert len(str(error.value).splitlines()) == 2
