import os
import pathlib

import pytest

from tests.support.configs import parsed
from trainer.config import flagfile_reader
from trainer.errors import UserError


def texts(*arguments):
    """Returns the arguments with flagfiles expanded."""
    return [each.text for each in flagfile_reader.expand(arguments)]


def write(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_flagfile_is_replaced_by_its_flags(tmp_path):
    file = write(tmp_path / "a.flags", "# why", "  --epochs=2", "// else", "", "--noise_horizon=3")
    for given in ([f"--flagfile={file}"], ["--flagfile", str(file)], [f"-flagfile={file}"]):
        found = texts("--epochs=1", *given, "--seed=4")
        assert found == ["--epochs=1", "--epochs=2", "--noise_horizon=3", "--seed=4"]
    found = flagfile_reader.expand(["--seed=1", *given])
    assert [each.flagfile for each in found] == [None, file, file]


def test_a_byte_order_mark_is_not_part_of_a_flag(tmp_path):
    (tmp_path / "a.flags").write_bytes(b"\xef\xbb\xbf--epochs=2\r\n")
    assert texts(f"--flagfile={tmp_path}/a.flags") == ["--epochs=2"]


@pytest.mark.parametrize("line", [b"--flagfile=a\0b", b"--model_dir=a\0b"])
def test_a_flagfile_with_a_nul_byte_is_rejected(line, tmp_path):
    (tmp_path / "a.flags").write_bytes(line)
    with pytest.raises(UserError, match="it has a NUL byte"):
        texts(f"--flagfile={tmp_path}/a.flags")


def test_a_flagfile_that_is_a_link_to_itself_is_rejected(tmp_path):
    (tmp_path / "a.flags").symlink_to("a.flags")
    outer = write(tmp_path / "b.flags", "--flagfile=a.flags")
    for file in (tmp_path / "a.flags", outer):
        with pytest.raises(UserError, match="cannot be read"):
            texts(f"--flagfile={file}")


@pytest.mark.parametrize("arguments", [["--flagfile="], ["--flagfile"]])
def test_a_flagfile_flag_without_a_name_is_rejected(arguments):
    with pytest.raises(UserError, match="--flagfile has no value"):
        texts(*arguments)


def test_flagfiles_after_two_dashes_are_not_read():
    assert texts("--", "--flagfile=nothing") == ["--", "--flagfile=nothing"]


def test_a_nested_flagfile_is_looked_up_beside_the_flagfile_that_names_it(tmp_path, monkeypatch):
    outer = write(tmp_path / "own" / "outer.flags", "--flagfile=inner.flags", "--epochs=3")
    write(tmp_path / "own" / "inner.flags", "--epochs=2", "--seed=5")
    write(tmp_path / "inner.flags", "--seed=6")  # The current folder is searched second.
    monkeypatch.chdir(tmp_path)
    assert texts(f"--flagfile={outer}") == ["--epochs=2", "--seed=5", "--epochs=3"]
    (tmp_path / "own" / "inner.flags").unlink()
    assert texts("--flagfile=own/outer.flags") == ["--seed=6", "--epochs=3"]


def test_a_recipe_is_found_by_name_from_anywhere(tmp_path, monkeypatch):
    recipes = {path.stem for path in pathlib.Path("flags").glob("*.flags")}
    assert set(flagfile_reader.recipes()) == recipes
    monkeypatch.chdir(tmp_path)
    for name in ("fashion_mnist_grow", "fashion_mnist_grow.flags"):
        assert parsed(f"--flagfile={name}").anneal_with == "batch_size"
    (tmp_path / "fashion_mnist_grow").mkdir()  # A run may have the name of a recipe.
    assert parsed("--flagfile=fashion_mnist_grow").anneal_with == "batch_size"
    write(tmp_path / "fashion_mnist_grow.flags", "--epochs=7")
    assert parsed("--flagfile=fashion_mnist_grow.flags").epochs == 7


def test_every_nested_recipe_is_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in flagfile_reader.recipes():
        assert parsed(f"--flagfile={name}", command="sweep").dataset


def refused(*arguments):
    """Returns the message with which the arguments are rejected."""
    with pytest.raises(UserError) as error:
        flagfile_reader.expand(arguments)
    return str(error.value)


def test_a_flagfile_that_names_itself_is_rejected(tmp_path):
    own = write(tmp_path / "own.flags", f"--flagfile={tmp_path}/other.flags")
    write(tmp_path / "other.flags", "--flagfile=own.flags")
    assert "includes itself, directly or through another flagfile" in refused(f"--flagfile={own}")
    twice = write(tmp_path / "twice.flags", "--flagfile=x.flags", "--flagfile=x.flags")
    write(tmp_path / "x.flags", "--seed=1")
    assert texts(f"--flagfile={twice}") == ["--seed=1", "--seed=1"]


def test_a_recipe_is_suggested_for_a_mistyped_name():
    assert "Did you mean fashion_mnist_grow" in refused("--flagfile=fashion_mnist_grwo")


def test_a_fifo_is_rejected_at_once(tmp_path):
    """Bash's <(...) is a FIFO; another flagfile may name one too."""
    os.mkfifo(tmp_path / "fifo")
    outer = write(tmp_path / "x.flags", "--epochs=2", f"--flagfile={tmp_path}/fifo")
    for given in ([f"--flagfile={tmp_path}/fifo"], ["--flagfile", f"{outer}"]):
        problem, remedy = refused(*given).splitlines()
        assert "/fifo cannot be read: it is a FIFO, not a regular file" in problem
        assert remedy == "Write the flags into a file, or give them on the command line."


def test_a_binary_flagfile_is_rejected(tmp_path):
    (tmp_path / "x.flags").write_bytes(b"\xff\xfe\x00")
    assert "is not UTF-8 text" in refused(f"--flagfile={tmp_path}/x.flags")
