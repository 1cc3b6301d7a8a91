"""Requests at the start of a command: how long they wait for a bucket, and what they report."""

import time

import pytest

from trainer.buckets.objects import RefusedError, UnavailableError
from trainer.buckets.url import parse
from trainer.errors import TryAgainError, UserError
from trainer.run_dir import bucket_connection
from trainer.run_dir.bucket_connection import local_folder, patiently

URL = parse("gs://bucket/runs/x")


def failing(*errors):
    """A request that raises each of `errors` in turn, and then returns "done"."""
    left = [*errors]

    def request():
        if left:
            raise left.pop(0)
        return "done"

    return request


def test_a_bucket_that_does_not_answer_is_asked_again(monkeypatch, logged):
    monkeypatch.setattr(bucket_connection, "_PATIENCE", 1.0)
    errors = [UnavailableError("503"), UnavailableError("504")]
    assert patiently(URL, failing(*errors)) == "done"
    assert logged == ["gs://bucket/runs/x cannot be reached: 503; trying for 1 s"]


def test_a_bucket_that_stays_away_ends_the_command_which_may_succeed_later(monkeypatch, logged):
    monkeypatch.setattr(bucket_connection, "_PATIENCE", 0.3)
    start = time.monotonic()
    with pytest.raises(TryAgainError, match="cannot be reached: 503") as raised:
        patiently(URL, failing(*[UnavailableError("503")] * 1000))
    assert raised.value.status == 75
    assert time.monotonic() - start < 2


def test_a_refusal_is_not_repeated():
    with pytest.raises(UserError, match="cannot be used: access is denied"):
        patiently(URL, failing(RefusedError("access is denied")))


def test_two_urls_never_share_a_folder(tmp_path):
    urls = ["gs://bucket/a-b", "gs://bucket/a/b", "s3://bucket/a-b", "gs://bucket/a b"]
    folders = {local_folder(parse(url), str(tmp_path)) for url in urls}
    assert len(folders) == len(urls)
    assert {folder.parent for folder in folders} == {tmp_path / "runs"}


def test_the_users_cache_is_the_default(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert local_folder(URL, None).parent == tmp_path / "crescendo/runs"
