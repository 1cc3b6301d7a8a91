"""Addresses of workers, and a server in place of Google's API for TPUs."""

import pytest

from tests.distributed.rendezvous_test import free_ports
from tests.support import tpu_api as served_api
from tests.support.configs import parsed
from trainer.distributed import tpu_api


@pytest.fixture
def addresses():
    """Addresses of two workers of this machine."""
    return tuple(f"localhost:{port}" for port in free_ports(2))


@pytest.fixture
def environment(tmp_path_factory):
    """Environment with credentials that Google's client accepts."""
    path = tmp_path_factory.mktemp("credentials") / "account.json"
    served_api.credentials(path)
    return {"GOOGLE_APPLICATION_CREDENTIALS": str(path)}


@pytest.fixture
def api(monkeypatch, environment):
    with served_api.api() as (served, where):
        environment |= where
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        parsed()  # Google's client defines an absl flag, so flags must be parsed before.
        monkeypatch.setattr(tpu_api, "_REQUEST_SECONDS", 0.5)
        monkeypatch.setattr(tpu_api, "_CONNECT_SECONDS", 0.5)
        monkeypatch.setattr(tpu_api, "_HEALTHY_SECONDS", 1.0)
        monkeypatch.setattr(tpu_api, "_POLL_SECONDS", 0.2)
        yield served
