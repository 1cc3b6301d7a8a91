"""The thread that copies a run: it outlives errors, and its end waits only so long."""

import pathlib
import threading
import time

import pytest

from tests.support.mirrors import content, restored, write
from trainer.buckets import lease, repeated
from trainer.errors import TryAgainError, UserError
from trainer.run_dir import checkpoint_names, manifest
from trainer.run_dir.mirror import Mirror
from trainer.run_dir.mirror_thread import MirrorThread


@pytest.fixture
def thread(place, tmp_path, monkeypatch):
    """A thread that copies the run at tmp_path / "run"."""
    monkeypatch.setattr(repeated, "POLL_SECONDS", 0.05)
    write(tmp_path / "run", 1)
    objects = place.connect()
    held = lease.take(objects, place.url, 60.0, lambda claim: False, lambda: 1)
    mirror = Mirror(objects, tmp_path / "run", held.claim.generation)
    return MirrorThread(mirror, tmp_path / "run", held, place.url)


def wait_for(condition):
    for _ in range(1200):
        if condition():
            return
        time.sleep(0.05)
    pytest.fail("nothing happened in a minute")


def number(place):
    state = manifest.newest(place.connect(), place.url)
    return state.number if state else 0


def test_each_checkpoint_is_copied(place, thread, tmp_path, logged):
    wait_for(lambda: number(place) == 1)
    write(tmp_path / "run", 2)
    wait_for(lambda: number(place) == 2)
    (tmp_path / "run/result.json").write_text("{}")
    thread.close(lambda: False)
    assert restored(place, tmp_path / "new")[1] == content(tmp_path / "run")
    assert logged == [f"{place.url} has all files of the run"]
    assert not lease.read(place.connect())[0].held


def test_no_error_ends_the_thread(place, thread, tmp_path, monkeypatch, logged):
    wait_for(lambda: number(place) == 1)
    found, failures = checkpoint_names.found, [UserError("it cannot be read"), KeyError("bug")]

    def failing(folder):
        if failures and threading.current_thread() is not threading.main_thread():
            raise failures.pop()
        return found(folder)

    monkeypatch.setattr(checkpoint_names, "found", failing)
    wait_for(lambda: not failures)
    write(tmp_path / "run", 2)
    wait_for(lambda: number(place) == 2)
    thread.close(lambda: False)


def test_the_pause_between_attempts_grows(place, thread, tmp_path, logged):
    wait_for(lambda: number(place) == 1)
    place.proxy.requests.clear()
    place.proxy.rule = lambda request: 403
    write(tmp_path / "run", 2)
    time.sleep(1)
    assert 3 <= len(place.proxy.requests) <= 8
    place.proxy.rule = lambda request: None
    thread.close(lambda: False)


@pytest.mark.parametrize(("stopped", "patience"), [(True, 60.0), (False, 0.5)])
def test_the_end_waits_only_so_long(
    place, thread, tmp_path, monkeypatch, logged, stopped, patience
):
    monkeypatch.setattr(repeated, "PATIENCE_AFTER_SIGNAL", 0.5)
    wait_for(lambda: number(place) == 1)
    place.proxy.rule = lambda request: 403
    write(tmp_path / "run", 2)
    start = time.monotonic()
    with pytest.raises(TryAgainError, match="lacks the newest files of the run, which are in"):
        thread.close(lambda: stopped, patience)
    assert time.monotonic() - start < 10
    # A TPU job recognises by these words that its disk alone has the last state.
    script = pathlib.Path("scripts/tpu/tpu_worker.sh").read_text()
    assert "lacks the newest files of the run" in script


def test_the_end_waits_until_the_bucket_answers(place, thread, tmp_path, logged):
    wait_for(lambda: number(place) == 1)
    place.proxy.rule = lambda request: 403
    write(tmp_path / "run", 2)
    threading.Timer(0.5, lambda: setattr(place.proxy, "rule", lambda request: None)).start()
    thread.close(lambda: False)
    assert restored(place, tmp_path / "new")[1] == content(tmp_path / "run")


def test_a_run_that_another_process_owns_is_not_copied(place, thread, tmp_path, logged):
    wait_for(lambda: number(place) == 1)
    other = lease.take(place.connect(), place.url, 60.0, lambda claim: True, lambda: 1)
    thread._lease._write(thread._lease.claim)
    write(tmp_path / "run", 2)
    with pytest.raises(TryAgainError, match="has taken it over"):
        thread.close(lambda: False)
    assert number(place) == 1
    other.release()
