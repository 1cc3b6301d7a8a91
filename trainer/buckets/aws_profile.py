"""Reads the settings of AWS's command-line tool, which the client of S3 does not read itself."""

import configparser
import contextlib
import datetime
import os
import pathlib
from typing import Any

from trainer.errors import UserError

# Variables with the endpoint of S3, or of another service with the same interface.
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_REGION = "us-east-1"  # Region if none is set. Other services than AWS ignore it.
# Time after which the keys in the file are read again, because another program may renew them.
_READ_AGAIN = datetime.timedelta(minutes=5)


def settings() -> dict[str, str]:
    """Returns the client's settings that differ from its own: region and endpoint.

    The client itself finds keys in AWS's variables, and the credentials of a machine, a container
    or a Kubernetes service account in AWS.

    Raises:
      UserError: if the file with the settings is damaged.
    """
    for variable in _ENDPOINTS:  # The client reads these too, and cannot use empty ones.
        if os.environ.get(variable) == "":
            del os.environ[variable]
    profile = _profile()
    name = profile if profile == "default" else f"profile {profile}"
    configured = _section(_file("AWS_CONFIG_FILE", "~/.aws/config"), name)
    found = {"region": configured.get("region", _REGION)}
    for variable in ("AWS_DEFAULT_REGION", "AWS_REGION"):
        if value := os.environ.get(variable):
            found["region"] = value
    endpoints = [os.environ.get(each) for each in _ENDPOINTS] + [configured.get("endpoint_url")]
    if endpoint := next(filter(None, endpoints), None):
        found["endpoint"] = endpoint
    return found


def has_keys() -> bool:
    """Returns whether to read the keys of a profile, because no variable has any.

    Raises:
      UserError: if AWS_PROFILE names a profile without keys, or the file with the keys is damaged.
    """
    if os.environ.get("AWS_ACCESS_KEY_ID"):
        return False
    if "aws_access_key_id" in _section(_key_file(), _profile()):
        return True
    if "AWS_PROFILE" in os.environ:
        raise UserError(
            f"AWS_PROFILE={_profile()} has no keys in {_key_file()}, and other kinds of profiles "
            "are not read.\nExport its credentials: "
            'eval "$(aws configure export-credentials --format env)"'
        )
    return False


def credentials() -> dict[str, Any]:
    """Returns the keys of the profile, as obstore's credential provider does."""
    keys: dict[str, str] = {}
    # Another program may be writing the file. Without keys, the bucket refuses a request, which is
    # repeated later.
    with contextlib.suppress(UserError):
        keys = _section(_key_file(), _profile())
    return {
        "access_key_id": keys.get("aws_access_key_id", ""),
        "secret_access_key": keys.get("aws_secret_access_key", ""),
        "token": keys.get("aws_session_token"),
        "expires_at": datetime.datetime.now(datetime.UTC) + _READ_AGAIN,
    }


def _profile() -> str:
    return os.environ.get("AWS_PROFILE", "default")


def _key_file() -> pathlib.Path:
    return _file("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials")


def _file(variable: str, default: str) -> pathlib.Path:
    return pathlib.Path(os.environ.get(variable, default)).expanduser()


def _section(path: pathlib.Path, name: str) -> dict[str, str]:
    """Returns a section of an AWS file; {} if the file or the section does not exist.

    Raises:
      UserError: if the file is damaged.
    """
    file = configparser.ConfigParser(interpolation=None)
    try:
        file.read(path, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())  # configparser writes several lines.
        raise UserError(
            f"{path} is damaged: {reason}.\nCorrect it: AWS's command-line tool reads it, too."
        ) from error
    return dict(file[name]) if file.has_section(name) else {}
