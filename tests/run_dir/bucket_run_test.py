"""A run in a bucket that its process owns, whose bucket does not answer at the end."""

import os
import signal
import time

import pytest

from tests.support.mirrors import write
from trainer.buckets import repeated, url
from trainer.errors import TryAgainError
from trainer.run_dir import bucket_run


def stopped_while_the_bucket_is_away(place, folder):
    with bucket_run.owned(url.parse(place.url), str(folder), 60.0) as run:
        write(run.path, 1)
        place.proxy.rule = lambda request: 403
        with run.watched() as stopped:
            stopped()  # A signal before this call ends the process.
            os.kill(os.getpid(), signal.SIGTERM)
            while not stopped():
                time.sleep(0.01)


def test_the_end_of_a_run_that_a_signal_stopped_waits_less_long(
    place, tmp_path, monkeypatch, logged
):
    """The signal came while the run trained, so the last copy does not see it itself."""
    monkeypatch.setattr(repeated, "PATIENCE_AFTER_SIGNAL", 0.5)
    start = time.monotonic()
    with pytest.raises(TryAgainError, match="lacks the newest files of the run"):
        stopped_while_the_bucket_is_away(place, tmp_path)
    assert time.monotonic() - start < 30
