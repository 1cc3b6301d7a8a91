"""The settings of AWS's command-line tool."""

import datetime
import os

import pytest

from trainer.buckets import aws_profile
from trainer.errors import UserError

CONFIG = """[default]
region = eu-west-1
[profile work]
region = us-west-2
endpoint_url = http://10.0.0.1:9000
"""
CREDENTIALS = """[default]
aws_access_key_id = A
aws_secret_access_key = %%B%%
[work]
aws_access_key_id = W
aws_secret_access_key = X
aws_session_token = Y
"""


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch):
    for name, content in {"config": CONFIG, "credentials": CREDENTIALS}.items():
        (tmp_path / name).write_text(content)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    return tmp_path


def test_the_default_profile_is_read():
    assert aws_profile.settings() == {"region": "eu-west-1"}
    assert aws_profile.has_keys()
    found = aws_profile.credentials()
    assert found.pop("expires_at") > datetime.datetime.now(datetime.UTC)
    assert found == {"access_key_id": "A", "secret_access_key": "%%B%%", "token": None}


def test_another_profile_is_read(monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "work")
    expected = {"region": "us-west-2", "endpoint": "http://10.0.0.1:9000"}
    assert aws_profile.settings() == expected
    found = aws_profile.credentials()
    found.pop("expires_at")
    assert found == {"access_key_id": "W", "secret_access_key": "X", "token": "Y"}


def test_variables_come_before_the_files(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "V")
    monkeypatch.setenv("AWS_REGION", "ap-south-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://minio.example")
    expected = {"region": "ap-south-1", "endpoint": "https://minio.example"}
    assert aws_profile.settings() == expected
    assert not aws_profile.has_keys()


def test_keys_that_another_program_renews_are_read_again(files):
    first = aws_profile.credentials()
    (files / "credentials").write_text("[default]\naws_access_key_id = N\n")
    assert (first["access_key_id"], aws_profile.credentials()["access_key_id"]) == ("A", "N")


def test_an_empty_variable_does_not_hide_the_keys_of_the_profile(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "")
    assert aws_profile.has_keys()


def test_a_profile_without_keys_is_refused(files, monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "sso")
    with pytest.raises(UserError, match=f"AWS_PROFILE=sso has no keys in {files}/credentials"):
        aws_profile.has_keys()


@pytest.mark.parametrize(
    "content",
    [b"not a section", b"[default]\n# caf\xe9\n", b"[default]\n[default]\n"],
    ids=["no section", "not UTF-8", "a section twice"],
)
def test_a_damaged_file_is_named(files, content):
    for name, read in (("config", aws_profile.settings), ("credentials", aws_profile.has_keys)):
        (files / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{files}/{name} is damaged: ") as error:
            read()
        assert len(str(error.value).splitlines()) == 2
    # A program that renews the keys may just be writing the file.
    assert aws_profile.credentials()["access_key_id"] == ""


@pytest.mark.parametrize("missing", [True, False])
def test_missing_and_empty_files_are_left_out(files, missing, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "")
    for name in ("config", "credentials"):
        (files / name).unlink()
        if not missing:
            (files / name).touch()
    assert aws_profile.settings() == {"region": "us-east-1"}
    assert not aws_profile.has_keys()
    assert "AWS_ENDPOINT_URL" not in os.environ
