"""Each test begins as a process that has not set up TensorFlow's devices."""

import pytest

from trainer.distributed import process_devices


@pytest.fixture(autouse=True)
def new_devices(monkeypatch):
    """Forgets what the tests before this one asked of TensorFlow."""
    monkeypatch.setattr(process_devices, "_first", [])
