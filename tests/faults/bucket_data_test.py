"""Training on data in buckets: kills, small disks and slow buckets."""

import json
import os
import signal
import subprocess
import time

import pytest

from tests.support import runs
from tests.support.bucket_data import upload, write_records
from tests.support.configs import done
from tests.support.photographs import write_photographs
from tests.support.small_disk import SmallDisk, needs_mounts
from trainer.data.bucket import open_folders
from trainer.data.bucket.placeholders import is_placeholder

GOOGLE = pytest.mark.parametrize("bucket_server", ["gs"], indirect=True)
S3 = pytest.mark.parametrize("bucket_server", ["s3"], indirect=True)
FLAGS = [*runs.PICTURES, "--augment=imagenet", "--epochs=2"]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """A folder of photographs, and the run on it from the disk."""
    root = tmp_path_factory.mktemp("photographs")
    write_photographs(root / "photographs", {"train": 160, "val": 40})
    runs.train(root / "run", f"--dataset=image_folder:{root / 'photographs'}", *FLAGS)
    return root / "photographs", root / "run"


def slow(seconds):
    def rule(request):
        time.sleep(seconds)

    return rule


def fetched(cache, pattern):
    """The files of a cache that are not placeholders."""
    return [path for path in cache.rglob(pattern) if not is_placeholder(str(path))]


@GOOGLE
def test_a_run_that_is_killed_while_it_fetches_goes_on(place, photographs, tmp_path):
    folder, whole = photographs
    upload(place, folder)
    place.proxy.rule = slow(0.1)
    flags = [f"--dataset=image_folder:{place.url}", f"--cache_dir={tmp_path / 'cache'}", *FLAGS]
    process = runs.started(tmp_path / "run", *flags, runs.OFTEN)
    runs.wait_for(lambda: len(fetched(tmp_path, "*.jpg")) > 50, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert len(fetched(tmp_path, "*.jpg")) < 160  # Of those for training.
    place.proxy.rule = lambda request: None
    done = runs.train(tmp_path / "run", *flags)
    assert "fetching " in done.stdout
    assert runs.digest(tmp_path / "run") == runs.digest(whole)
    assert runs.points(tmp_path / "run") == runs.points(whole)
    # A machine with the whole cache fetches nothing, and needs no training data for `evaluate`.
    before = len(place.proxy.requests)
    evaluated = runs.train(tmp_path / "run", *flags[1:2], "--format=json", name="evaluate")
    assert json.loads(evaluated.stdout)["top1"] == runs.result(whole)["top1"]
    assert not [each for each in place.proxy.requests[before:] if ".jpg" in each.path]


@S3
def test_plan_tells_what_a_run_fetches(place, tmp_path, capsys, monkeypatch):
    write_records(tmp_path / "records", {"train": 200, "test": 30}, shards=5, size=(28, 28))
    upload(place, tmp_path / "records")
    monkeypatch.setattr(open_folders, "_OPENED", open_folders._Opened())
    flags = ["--dataset=colour", f"--data_dir={place.url}", f"--cache_dir={tmp_path / 'cache'}"]
    flags += ["--initial_batch_size=4", "--ghost_batch_size=4"]
    status, out, error = done(capsys, "plan", *flags, "--format=json")
    assert status == 0, error
    data = json.loads(out)["data"]
    size = sum(path.stat().st_size for path in (tmp_path / "records").rglob("*-of-*"))
    counted = ("files", "bytes", "missing_files", "missing_bytes", "requests")
    assert [data[name] for name in counted] == [10, size, 10, size, 11]
    assert not fetched(tmp_path / "cache", "*-of-*")
    assert "the first epoch fetches " in done(capsys, "plan", *flags)[1]
    # A plan needs no evaluation split, but the training split must exist.
    status, out, _ = done(capsys, "plan", *flags, "--eval_split=none", "--format=json")
    assert json.loads(out)["data"]["files"] == 5
    status, _, error = done(capsys, "plan", *flags, "--train_split=none")
    assert (status, error.count("\n")) == (2, 2), error
    run = [*flags, *FLAGS, "--image_size=28", "--initial_batch_size=4", "--ghost_batch_size=4"]
    runs.train(tmp_path / "run", *run, "--max_batch_size=8", "--stop_at_epoch=0.1")
    status, out, _ = done(capsys, "plan", *flags, "--format=json")
    assert json.loads(out)["data"]["missing_files"] < 10
    status, _, error = done(capsys, "plan", f"--data_dir={place.url}")
    assert (status, "fashion_mnist is not prepared in" in error) == (0, True)


@needs_mounts
@S3
def test_data_that_do_not_fit_on_the_disk_are_refused(place, tmp_path):
    write_photographs(tmp_path / "large", {"train": 100, "val": 10}, size=(200, 200))
    upload(place, tmp_path / "large")
    flags = [f"--dataset=image_folder:{place.url}", f"--cache_dir={tmp_path / 'disk'}", *FLAGS]
    command = runs.command(tmp_path / "run", *flags)
    with SmallDisk(tmp_path / "disk") as disk:
        disk.fill(leaving=2**20)
        refused = subprocess.run(command, capture_output=True, text=True, preexec_fn=disk.join)
    assert refused.returncode == 2, refused.stderr
    first, second = refused.stderr.splitlines()[-2:]
    assert "the files of this run take " in first
    assert second == "Free disk space, or name a folder on a larger disk with --cache_dir."
    assert not (tmp_path / "run/checkpoints").exists()
