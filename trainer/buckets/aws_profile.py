"""Reads the settings of AWS's command-line tool, which the client of S3 does not read itself."""

import configparser
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
    """
    for variable in _ENDPOINTS:  # The client reads these too, and cannot use empty ones.
        if os.environ.get(variable) == "":
            del os.environ[variable]
    profile = _profile()
    name = profile if profile == "default" else f"profile {profile}"
    configured = _section("AWS_CONFIG_FILE", "~/.aws/config", name)
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
      UserError: if AWS_PROFILE names a profile without keys.
    """
    if "AWS_ACCESS_KEY_ID" in os.environ:
        return False
    if "aws_access_key_id" in _keys():
        return True
    if "AWS_PROFILE" in os.environ:
        raise UserError(
            f"AWS_PROFILE={_profile()} has no keys in ~/.aws/credentials, and other kinds of "
            "profiles are not read.\nExport its credentials: "
            'eval "$(aws configure export-credentials --format env)"'
        )
    return False


def credentials() -> dict[str, Any]:
    """Returns the keys of the profile, as obstore's credential provider does."""
    keys = _keys()
    return {
        "access_key_id": keys.get("aws_access_key_id", ""),
        "secret_access_key": keys.get("aws_secret_access_key", ""),
        "token": keys.get("aws_session_token"),
        "expires_at": datetime.datetime.now(datetime.UTC) + _READ_AGAIN,
    }


def _profile() -> str:
    return os.environ.get("AWS_PROFILE", "default")


def _keys() -> dict[str, str]:
    return _section("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials", _profile())


def _section(variable: str, default: str, name: str) -> dict[str, str]:
    """Returns a section of an AWS file; {} if the file or the section does not exist."""
    path = pathlib.Path(os.environ.get(variable, default)).expanduser()
    file = configparser.ConfigParser(interpolation=None)
    try:
        file.read(path)
    except configparser.Error:
        return {}
    return dict(file[name]) if file.has_section(name) else {}
