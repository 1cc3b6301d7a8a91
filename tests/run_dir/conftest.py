"""Checks that nothing is logged except by the tests that look at the log."""

from collections.abc import Iterator

import pytest

from tests.support import messages


@pytest.fixture(autouse=True)
def silence(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test without the fixture `logged` in whose process a message is logged."""
    if "logged" in request.fixturenames:
        yield
        return
    with messages.logged() as found:
        yield
    assert found == []
