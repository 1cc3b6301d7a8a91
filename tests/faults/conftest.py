"""The run to which runs of several workers are compared."""

import pytest

from tests.support.runs import train
from tests.support.workers import SMOOTH


@pytest.fixture(scope="session")
def one(tmp_path_factory):
    """SMOOTH in one process throughout, a point an update."""
    model_dir = tmp_path_factory.mktemp("one") / "run"
    train(model_dir, *SMOOTH)
    return model_dir
