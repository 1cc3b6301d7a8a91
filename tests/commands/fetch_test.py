"""fetch: local copies of runs in buckets."""

import pytest

from tests.support.mirrors import content, write
from trainer.main import main
from trainer.run_dir.mirror import Mirror


@pytest.fixture
def mirror(place, tmp_path):
    """Copies the run at tmp_path / "run" to the bucket."""
    write(tmp_path / "run", 1)
    mirror = Mirror(place.connect(), tmp_path / "run", 1)
    mirror.copy()
    return mirror


def fetch(*flags):
    return main(["crescendo", "fetch", *flags])


def test_a_copy_is_written_and_brought_up_to_date(place, mirror, tmp_path, capsys):
    flags = [f"--model_dir={place.url}", f"--local_dir={tmp_path}/new/x"]
    for update in (2, 3):
        assert fetch(*flags) == 0
        found = content(tmp_path / "new/x")
        assert found.pop("fetched.json")
        assert found == content(tmp_path / "run")
        write(tmp_path / "run", update)
        mirror.copy()
    assert f"{tmp_path}/new/x has the 5 files of {place.url}" in capsys.readouterr().out


def test_another_folder_is_not_replaced(place, mirror, tmp_path, capsys):
    assert fetch(f"--model_dir={place.url}", f"--local_dir={tmp_path}/run") == 2
    assert "exists and is not a copy of" in capsys.readouterr().err
    (tmp_path / "file").write_text("mine")
    assert fetch(f"--model_dir={place.url}", f"--local_dir={tmp_path}/file") == 2


def test_a_copy_that_was_trained_is_not_replaced(place, mirror, tmp_path, capsys):
    flags = [f"--model_dir={place.url}", f"--local_dir={tmp_path}/new"]
    assert fetch(*flags) == 0
    (tmp_path / "new/lock").touch()
    assert fetch(*flags) == 2
    assert "was trained after it was fetched" in capsys.readouterr().err


def test_a_folder_that_cannot_be_replaced_is_an_error_with_a_remedy(
    place, mirror, tmp_path, monkeypatch, capsys
):
    """The kernel does not rename the folder `.`."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert fetch(f"--model_dir={place.url}", "--local_dir=.") == 2
    problem, remedy = capsys.readouterr().err.splitlines()
    assert "--local_dir=. cannot be written: Device or resource busy" in problem
    assert remedy.startswith("Name another folder, such as a new one below it")
    assert content(tmp_path / "here") == {}


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (["--local_dir=x"], "is not in a bucket: name the URL of a run"),
        (["--model_dir=runs/x", "--local_dir=x"], "is not in a bucket"),
        (["--model_dir=gs://bucket/x"], "--local_dir is missing"),
    ],
)
def test_missing_flags_are_named(capsys, flags, why):
    assert fetch(*flags) == 2
    assert why in capsys.readouterr().err


def test_a_folder_without_a_run_is_named(place, tmp_path, capsys):
    assert fetch(f"--model_dir={place.url}", f"--local_dir={tmp_path}/new") == 2
    assert f"{place.url} has no run" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
