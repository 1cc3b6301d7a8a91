"""The settings of AWS's command-line tool."""

import pytest

from trainer.buckets import aws_profile

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
    keys = {"access_key_id": "A", "secret_access_key": "%%B%%"}
    assert aws_profile.settings() == {"region": "eu-west-1", **keys}


def test_another_profile_is_read(monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "work")
    keys = {"access_key_id": "W", "secret_access_key": "X", "session_token": "Y"}
    expected = {"region": "us-west-2", "endpoint": "http://10.0.0.1:9000", **keys}
    assert aws_profile.settings() == expected


def test_variables_come_before_the_files(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "V")
    monkeypatch.setenv("AWS_REGION", "ap-south-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://minio.example")
    expected = {"region": "ap-south-1", "endpoint": "https://minio.example"}
    assert aws_profile.settings() == expected


@pytest.mark.parametrize("content", ["", "not a section"])
def test_missing_and_damaged_files_are_left_out(files, content):
    for name in ("config", "credentials"):
        (files / name).write_text(content)
    assert aws_profile.settings() == {"region": "us-east-1"}
