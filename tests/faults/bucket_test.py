"""Runs in buckets: kills, lost machines, stalled owners and buckets that do not answer."""

import json
import os
import shutil
import signal
import subprocess
import threading
import time

import pytest

from tests.support import bucket_servers, runs
from trainer.buckets import lease, url
from trainer.run_dir import bucket_run, manifest

# Objects, leases and copies are tested on both services elsewhere; a run takes seconds.
GOOGLE = pytest.mark.parametrize("bucket_server", ["gs"], indirect=True)
S3 = pytest.mark.parametrize("bucket_server", ["s3"], indirect=True)
SHORT = [*runs.SHORT, "--worker_timeout=2"]
OFTEN = [runs.OFTEN, runs.MANY_EVALUATIONS]
# A run that resumes is beyond this epoch, so that it does not trace a step.
STOPS_AT_ONCE = "--stop_at_epoch=0.01"


def cache(tmp_path, name="machine"):
    return f"--cache_dir={tmp_path / name}"


def local(tmp_path, name="machine"):
    """The local directory of the only run in a cache."""
    (found,) = (p for p in (tmp_path / name / "runs").iterdir() if not p.suffix)
    return found


def stopped(place, tmp_path, run, update, name="machine"):
    """Leaves `run` in the bucket and in a machine's cache, as a kill leaves it after `update`.

    This process opens the run as training does, and a copy of `run` takes the place of training.
    """
    left = runs.as_of(run, tmp_path / f"{name}-{update}", update)
    with bucket_run.owned(url.parse(place.url), str(tmp_path / name), 2.0) as own:
        shutil.copytree(left, own.path, dirs_exist_ok=True)


def start(place, tmp_path, name="machine", *more):
    return runs.started(place.url, *SHORT, cache(tmp_path, name), *OFTEN, *more)


def at_copy(place, process, act):
    """Calls `act` when the first copy of a run with a checkpoint is about to end.

    The run has not ended then. The server calls `act`, because a loaded machine can end a run
    between two looks at its bucket. The result is the proxy's verdict on the request that would end
    the copy.
    """
    checkpoint, acted = threading.Event(), threading.Event()

    def rule(request):
        if request.method == "PUT" and "/checkpoints/" in request.path:
            checkpoint.set()
        ends_a_copy = request.method == "PUT" and "/manifest-" in request.path
        # One or two copies before it have the flags alone.
        if ends_a_copy and checkpoint.is_set():
            place.proxy.rule = lambda request: None
            verdict = act()
            acted.set()
            return verdict
        return None

    place.proxy.rule = rule
    with runs.held(process):
        runs.wait_for(acted.is_set, process)


def send(process, number):
    return lambda: os.killpg(process.pid, number)


@S3
def test_a_killed_run_goes_on_on_an_empty_machine(place, tmp_path):
    process = start(place, tmp_path, "first")
    at_copy(place, process, send(process, signal.SIGKILL))
    process.communicate()
    undisturbed = runs.started(tmp_path / "undisturbed", *SHORT, *OFTEN)
    done = runs.train(place.url, *SHORT, cache(tmp_path, "second"), *OFTEN)
    assert "restored the run from" in done.stdout
    assert "resumed at update" in done.stdout
    assert f"{place.url} has all files of the run" in done.stdout
    second = local(tmp_path, "second")
    _, errors = undisturbed.communicate()
    assert undisturbed.returncode == 0, errors
    assert runs.digest(second) == runs.digest(tmp_path / "undisturbed")
    for split in ("train", "eval"):
        assert runs.points(second, split) == runs.points(tmp_path / "undisturbed", split)
    assert not lease.read(place.connect())[0].held
    # On a third machine, the run is finished.
    done = runs.train(place.url, *SHORT, cache(tmp_path, "third"))
    assert f"{place.url} is finished: top1" in done.stdout


@GOOGLE
def test_a_killed_run_goes_on_at_once_on_its_machine(place, tmp_path):
    process = start(place, tmp_path, "machine", "--worker_timeout=600")
    at_copy(place, process, send(process, signal.SIGKILL))
    process.communicate()
    done = runs.train(place.url, *SHORT, cache(tmp_path), STOPS_AT_ONCE)
    assert "restored" not in done.stdout
    assert "resumed at update" in done.stdout


@GOOGLE
def test_a_stalled_owner_ends_without_harm(place, tmp_path):
    stalled = start(place, tmp_path, "first")
    at_copy(place, stalled, send(stalled, signal.SIGSTOP))
    runs.train(place.url, *SHORT, cache(tmp_path, "second"))
    state = manifest.newest(place.connect(), place.url)
    os.killpg(stalled.pid, signal.SIGCONT)
    output, errors = stalled.communicate(timeout=120)
    assert stalled.returncode == 75, output + errors
    assert f"the end of this run is not in {place.url}: process" in errors
    assert "has taken it over, because this process did not renew its lease in time" in errors
    assert manifest.newest(place.connect(), place.url) == state


@S3
def test_a_second_process_is_refused(place, tmp_path):
    long = "--epochs=500"
    first = start(place, tmp_path, "first", long)
    at_copy(place, first, lambda: None)
    why = {"second": "is in use by process", "first": "by a process on this machine"}
    for name, reason in why.items():
        done = runs.train(place.url, *SHORT, cache(tmp_path, name), long, status=75)
        assert reason in done.stderr
        assert len(done.stderr.splitlines()) <= 2
    os.killpg(first.pid, signal.SIGTERM)
    first.communicate(timeout=60)
    assert first.returncode == 75
    assert not lease.read(place.connect())[0].held


@pytest.mark.parametrize(
    ("bucket_server", "verdict"),
    [("gs", "drop"), ("s3", 503), ("gs", 403)],
    indirect=["bucket_server"],
)
def test_training_does_not_wait_for_a_bucket_that_is_away(place, tmp_path, uninterrupted, verdict):
    process = start(place, tmp_path, "machine")

    def away():
        place.proxy.rule = lambda request: verdict
        return verdict

    at_copy(place, process, away)
    runs.wait_for(lambda: (local(tmp_path) / "result.json").exists(), process)
    time.sleep(2)
    assert process.poll() is None
    place.proxy.rule = lambda request: None
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "is not up to date: " in output
    assert output.index("is not up to date") < output.index("is up to date again")
    assert runs.digest(local(tmp_path)) == runs.digest(uninterrupted[0])
    assert "result.json" in manifest.newest(place.connect(), place.url).files


@S3
def test_a_bucket_that_was_emptied_is_not_filled_in_silence(place, tmp_path, uninterrupted):
    stopped(place, tmp_path, uninterrupted[0], 125)
    bucket = place.connect()
    for name in bucket.names(""):
        bucket.delete(name)
    done = runs.train(place.url, *SHORT, cache(tmp_path), status=2)
    assert "holds no run, but this machine has a copy of a run that was there" in done.stderr


@GOOGLE
def test_another_machines_progress_replaces_an_old_local_copy(place, tmp_path, uninterrupted):
    stopped(place, tmp_path, uninterrupted[0], 125, "first")
    stopped(place, tmp_path, uninterrupted[0], 170, "second")
    done = runs.train(place.url, *SHORT, cache(tmp_path, "first"), STOPS_AT_ONCE)
    assert f"the run in {place.url} is newer than the one in" in done.stdout
    assert "epoch 2.0" in done.stdout.partition("resumed at update ")[2].splitlines()[0]


@GOOGLE
def test_a_bucket_that_refuses_is_named_before_any_training(place, tmp_path):
    place.proxy.rule = lambda request: 403
    done = runs.train(place.url, *SHORT, cache(tmp_path), status=2)
    first, second = done.stderr.splitlines()
    assert f"{place.url} cannot be used: 403 Forbidden" in first
    assert "credentials that may list and read, and for a run also create and delete" in second
    assert "loading TensorFlow" not in done.stdout


def test_missing_credentials_are_named(tmp_path, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/does/not/exist")
    done = runs.train("s3://a-bucket/x", *SHORT, cache(tmp_path), status=2)
    assert "aws configure" in done.stderr
    assert "Traceback" not in done.stderr


@S3
def test_the_commands_read_a_run_in_a_bucket(place, tmp_path, uninterrupted):
    stopped(place, tmp_path, uninterrupted[0], 125)

    def command(name, *flags):
        line = runs.command(place.url, cache(tmp_path, "reader"), *flags, name=name)
        return subprocess.run(line, capture_output=True, text=True)

    done = command("evaluate", "--format=json")
    assert done.returncode == 0, done.stderr
    assert '"top1"' in done.stdout
    done = command("export", f"--export_dir={tmp_path / 'export'}")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "export/model.keras").exists()
    done = command("export")
    assert done.returncode == 0, done.stderr
    assert "export/model.keras" in manifest.newest(place.connect(), place.url).files
    done = command("sweep", "--sweep=seed=0,1")
    assert done.returncode == 2
    assert "exists and is not the folder of a sweep" in done.stderr


@S3
def test_a_cache_that_cannot_be_written_is_named(place, tmp_path):
    (tmp_path / "file").write_text("")
    done = runs.train(place.url, *SHORT, f"--cache_dir={tmp_path}/file", status=2)
    first, second = done.stderr.splitlines()
    assert "the local folder of what is in the bucket, cannot be used: Not a directory" in first
    assert second == "Name another folder with --cache_dir."


@GOOGLE
def test_workers_wait_for_a_chief_that_restores_the_run(place, tmp_path, uninterrupted):
    stopped(place, tmp_path, uninterrupted[0], 125, "first")
    ports = [bucket_servers.free_port() for _ in range(2)]
    cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
    workers = []
    for index in (1, 0):
        task = {"cluster": cluster, "task": {"type": "worker", "index": index}}
        env = os.environ | {"TF_CONFIG": json.dumps(task)}
        flags = [*SHORT, "--strategy=multi_worker", cache(tmp_path, f"worker{index}")]
        workers.append(runs.started(place.url, *flags, "--worker_timeout=5", env=env))
        time.sleep(8 if index else 0)  # The other worker waits for longer than --worker_timeout.
    for worker in workers:
        output, errors = worker.communicate(timeout=120)
        assert worker.returncode == 0, output + errors
    assert "restored the run from" in output
    assert "result.json" in manifest.newest(place.connect(), place.url).files
    assert not (tmp_path / "worker1").exists()
