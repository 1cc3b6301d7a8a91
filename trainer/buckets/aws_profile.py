"""Reads the settings of AWS's command-line tool, which the client of S3 does not read itself."""

import configparser
import os
import pathlib

# Variables with the endpoint of S3, or of another service with the same interface.
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_REGION = "us-east-1"  # Region if none is set. Other services than AWS ignore it.


def settings() -> dict[str, str]:
    """Returns the client's settings that differ from its own: endpoint, region and access keys.

    The client itself finds keys in AWS's variables, and the credentials of a machine, a container
    or a Kubernetes service account in AWS. If AWS_ACCESS_KEY_ID is not set, this function reads the
    keys of the profile AWS_PROFILE in ~/.aws/credentials.
    """
    profile = os.environ.get("AWS_PROFILE", "default")
    name = profile if profile == "default" else f"profile {profile}"
    configured = _section("AWS_CONFIG_FILE", "~/.aws/config", name)
    found = {"region": configured.get("region", _REGION)}
    for variable in ("AWS_DEFAULT_REGION", "AWS_REGION"):
        if value := os.environ.get(variable):
            found["region"] = value
    endpoints = [os.environ.get(each) for each in _ENDPOINTS] + [configured.get("endpoint_url")]
    if endpoint := next(filter(None, endpoints), None):
        found["endpoint"] = endpoint
    if "AWS_ACCESS_KEY_ID" not in os.environ:
        keys = _section("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials", profile)
        kept = {
            "aws_access_key_id": "access_key_id",
            "aws_secret_access_key": "secret_access_key",
            "aws_session_token": "session_token",
        }
        found |= {ours: keys[theirs] for theirs, ours in kept.items() if theirs in keys}
    return found


def _section(variable: str, default: str, name: str) -> dict[str, str]:
    """Returns a section of an AWS file; {} if the file or the section does not exist."""
    path = pathlib.Path(os.environ.get(variable, default)).expanduser()
    file = configparser.ConfigParser(interpolation=None)
    try:
        file.read(path)
    except configparser.Error:
        return {}
    return dict(file[name]) if file.has_section(name) else {}
