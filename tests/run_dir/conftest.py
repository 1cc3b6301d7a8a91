"""Variables of small checkpoints, and a check that only tests of the log log a message."""

from collections.abc import Iterator

import pytest
import tensorflow as tf

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


@pytest.fixture
def variables() -> dict[str, list[tf.Variable]]:
    return {
        "weights": [tf.Variable([1.0, 2.0]), tf.Variable([[3.0]])],
        "slots": [tf.Variable([0.0, 0.0])],
    }
