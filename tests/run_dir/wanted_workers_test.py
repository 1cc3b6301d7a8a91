"""The number of workers that launchers start."""

import subprocess
import sys

import pytest

from tests.support.configs import parsed
from trainer.buckets.url import parse
from trainer.run_dir import wanted_workers
from trainer.run_dir.bucket_connection import local_folder
from trainer.run_dir.wanted_workers import FILE, Request


def config(model_dir, *flags):
    return parsed("--strategy=multi_worker", f"--model_dir={model_dir}", *flags)


def test_a_new_run_starts_with_the_smallest_number(tmp_path):
    assert wanted_workers.number(config(tmp_path)) is None
    assert wanted_workers.number(config(tmp_path, "--workers=2:4")) == 2


@pytest.mark.parametrize(("asked", "expected"), [(4, 4), (2, 2), (8, 2), (1, 2)])
def test_a_run_is_given_the_number_that_it_asked_for_within_the_range(tmp_path, asked, expected):
    wanted_workers.write(tmp_path, Request(asked, 640, 2250))
    assert wanted_workers.read(tmp_path) == Request(asked, 640, 2250)
    assert wanted_workers.number(config(tmp_path, "--workers=2:4")) == expected
    assert wanted_workers.number(config(tmp_path)) is None


@pytest.mark.parametrize("content", ["", "{", '{"workers": 0, "batch_size": 1, "update": 1}', "3"])
def test_a_damaged_file_is_no_request(tmp_path, content):
    (tmp_path / FILE).write_text(content)
    assert wanted_workers.read(tmp_path) is None
    assert wanted_workers.number(config(tmp_path, "--workers=1:4")) == 1


def test_a_run_in_a_bucket_has_its_number_in_the_local_copy(tmp_path):
    url = "gs://bucket/runs/x"
    folder = local_folder(parse(url), str(tmp_path))
    folder.mkdir(parents=True)
    wanted_workers.write(folder, Request(3, 640, 2250))
    assert wanted_workers.number(config(url, f"--cache_dir={tmp_path}", "--workers=1:4")) == 3


def test_the_launchers_command_prints_the_number_or_nothing(tmp_path):
    """--workers may be in a flagfile; wrong flags are left to train."""

    def printed(*flags):
        module = (sys.executable, "-m", "trainer.run_dir.wanted_workers")
        command = [*module, f"--model_dir={tmp_path}", *flags]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert not done.stderr
        return done.stdout

    (tmp_path / "a.flags").write_text("--workers=1:4\n")
    wanted_workers.write(tmp_path, Request(3, 640, 2250))
    assert printed(f"--flagfile={tmp_path}/a.flags") == "3\n"
    assert printed() == printed("--workers=1:4", "--nonsense=3") == ""
