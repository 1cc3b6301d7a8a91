"""The number of workers that launchers start."""

import json
import subprocess
import sys

import pytest

from tests.support.configs import parsed
from tests.support.mirrors import write
from trainer.buckets.url import parse
from trainer.errors import ExitStatus, UserError
from trainer.run_dir import wanted_workers
from trainer.run_dir.bucket_connection import local_folder
from trainer.run_dir.mirror import Mirror
from trainer.run_dir.wanted_workers import FILE, Request


def start(model_dir, most, *flags):
    """The number of workers, and the range of the run."""
    config = parsed("--strategy=multi_worker", f"--model_dir={model_dir}", *flags)
    found = wanted_workers.next_start(config, most)
    return found.workers, str(found.numbers)


def test_a_new_run_starts_with_the_smallest_number(tmp_path):
    assert start(tmp_path, 9, "--workers=2:4") == (2, "2:4")


@pytest.mark.parametrize(("asked", "expected"), [(4, 4), (2, 2), (8, 2), (1, 2)])
def test_a_run_is_given_the_number_that_it_asked_for_within_the_range(tmp_path, asked, expected):
    wanted_workers.write(tmp_path, Request(asked, 640, 2250))
    assert wanted_workers.read(tmp_path) == Request(asked, 640, 2250)
    assert start(tmp_path, 4, "--workers=2:4") == (expected, "2:4")


def test_a_run_may_not_ask_for_more_than_can_start(tmp_path):
    wanted_workers.write(tmp_path, Request(4, 640, 2250))
    assert start(tmp_path, 3, "--workers=2:4") == (2, "2:3")
    with pytest.raises(UserError, match=r"--workers=2:4 needs at least 2 workers.*1 can start"):
        start(tmp_path, 1, "--workers=2:4")


@pytest.mark.parametrize("content", ["", "{", '{"workers": 0, "batch_size": 1, "update": 1}', "3"])
def test_a_damaged_file_is_ignored(tmp_path, content):
    (tmp_path / FILE).write_text(content)
    assert wanted_workers.read(tmp_path) is None
    assert start(tmp_path, 4, "--workers=1:4") == (1, "1:4")


def test_a_file_of_a_later_version_is_read(tmp_path):
    known = {"workers": 3, "batch_size": 640, "update": 2250}
    (tmp_path / FILE).write_text(json.dumps(known | {"speed": 1.5}))
    assert wanted_workers.read(tmp_path) == Request(3, 640, 2250)


def test_a_run_whose_bucket_does_not_answer_has_its_number_in_the_local_copy(tmp_path, logged):
    url = "s3://bucket/runs/x"  # Without credentials.
    folder = local_folder(parse(url), str(tmp_path))
    folder.mkdir(parents=True)
    wanted_workers.write(folder, Request(3, 640, 2250))
    assert start(url, 4, f"--cache_dir={tmp_path}", "--workers=1:4") == (3, "1:4")
    assert logged == ["workers.json is read from the local copy: no credentials were found"]


def test_a_run_in_a_bucket_has_its_number_there(place, tmp_path):
    """The launcher may be on another machine than the first worker."""
    folder = tmp_path / "run"
    write(folder, 1)
    wanted_workers.write(folder, Request(3, 640, 2250))
    Mirror(place.connect(), folder, 1).copy()
    assert start(place.url, 4, f"--cache_dir={tmp_path}/other", "--workers=1:4") == (3, "1:4")


def printed(*words, status=0):
    module = (sys.executable, "-m", "trainer.run_dir.wanted_workers")
    done = subprocess.run([*module, *words], capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    return done.stdout, done.stderr


def test_the_launchers_command_prints_the_number_or_nothing(tmp_path):
    """--workers may be in a flagfile; wrong flags are left to train."""
    flags = (f"--model_dir={tmp_path}", f"--flagfile={tmp_path}/a.flags")
    (tmp_path / "a.flags").write_text("--workers=1:4\n")
    wanted_workers.write(tmp_path, Request(3, 640, 2250))
    assert printed("8", *flags) == ("3 1:4\n", "")
    assert printed("8", *flags[:1]) == printed("8", *flags, "--nonsense=3") == ("", "")
    assert "usage: " in printed(*flags, status=ExitStatus.USER_ERROR)[1]
    _, errors = printed("1", *flags, "--workers=2:4", status=ExitStatus.USER_ERROR)
    assert errors.startswith("wanted_workers: --workers=2:4 needs at least 2 workers")
