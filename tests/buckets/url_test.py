"""The URLs of folders in buckets."""

import pytest

from trainer.buckets import url


@pytest.mark.parametrize(
    ("text", "scheme", "bucket", "folder"),
    [
        ("gs://bucket/runs/x", "gs", "bucket", "runs/x"),
        ("s3://my-bucket.eu/runs/x/", "s3", "my-bucket.eu", "runs/x"),
        ("s3://abc/a b/ü", "s3", "abc", "a b/ü"),
        ("gs://abc", "gs", "abc", ""),
    ],
)
def test_a_url_names_bucket_and_folder(text, scheme, bucket, folder):
    found = url.parse(text)
    assert found == url.BucketUrl(scheme, bucket, folder)
    assert str(found) == text.rstrip("/")


@pytest.mark.parametrize("text", ["gs://abc", "gs://abc/runs"])
def test_a_url_names_folders_below_it(text):
    found = url.parse(text)
    assert found.below("seed=0/x") == url.parse(f"{text}/seed=0/x")
    assert found.below("") == found


@pytest.mark.parametrize("text", ["runs/x", "/runs/x", "gs:/b/x", "gs://", "gs://B/x", "file:///x"])
def test_other_texts_are_not_urls_of_buckets(text):
    assert url.parse(text) is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("gs:/bucket/x", "is not the URL of a folder in a bucket"),
        ("gs://bucket//x", "is not the URL of a folder in a bucket"),
        ("s3://bucket", "names a whole bucket"),
        ("s3://bucket/a/../b", "has a folder . or .."),
        ("gs://bucket/" + "x" * 701, "has a path of more than 700 bytes"),
    ],
)
def test_a_wrong_url_is_refused_with_a_remedy(text, why):
    assert url.problem(text).startswith(why)
    assert ": " in url.problem(text)


def test_a_right_url_has_no_problem():
    assert not url.problem("gs://bucket/runs/x")
