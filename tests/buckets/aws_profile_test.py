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


def test_a_profile_without_keys_is_refused(monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "sso")
    with pytest.raises(UserError, match="AWS_PROFILE=sso has no keys"):
        aws_profile.has_keys()


@pytest.mark.parametrize("content", ["", "not a section"])
def test_missing_and_damaged_files_are_left_out(files, content, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "")
    for name in ("config", "credentials"):
        (files / name).write_text(content)
    assert aws_profile.settings() == {"region": "us-east-1"}
    assert not aws_profile.has_keys()
    assert "AWS_ENDPOINT_URL" not in os.environ
