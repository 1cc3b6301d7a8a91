"""Runs as a kill leaves them, without the time that it takes to kill one."""

import pytest

from tests.support import runs


@pytest.fixture
def as_of():
    """Copies a run whose newest checkpoint is that of an update, as a kill leaves it."""
    return runs.as_of
