"""A quick session: a test that starts a process or a training run is skipped when it does so.

A few long files are left out as a whole.
"""

import sys
from typing import Any, NoReturn

import pytest

from trainer.training.loop import TrainingLoop

# Files whose tests build large models or trace long graphs: together they take minutes.
_LONG = (
    "tests/data/bad_examples_test.py",
    "tests/data/chunk_decoding_test.py",
    "tests/nn/ghostify_test.py",
    "tests/nn/models/precision_test.py",
    "tests/nn/models/registry_test.py",
    "tests/training/keras_behaviour_test.py",
    "tests/training/step_test.py",
    "tests/training/tpu_graph_test.py",
)
_STARTS = {"subprocess.Popen", "os.fork", "os.posix_spawn", "os.system"}


class Quick:
    """A plugin of pytest. Tests need no marker for it: what they do decides."""

    def __init__(self) -> None:
        self._in_test = False
        sys.addaudithook(self._refuse_process)
        TrainingLoop.run = _refuse_training  # type: ignore[method-assign]

    def _refuse_process(self, event: str, arguments: tuple[Any, ...]) -> None:
        # Outside tests, modules ask the system what it can do.
        if self._in_test and event in _STARTS:
            pytest.skip("not in a quick session: it starts a process")

    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        long = [item for item in items if item.nodeid.startswith(_LONG)]
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if not item.nodeid.startswith(_LONG)]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self) -> Any:
        self._in_test = True
        try:
            return (yield)
        finally:
            self._in_test = False


def _refuse_training(*_: Any) -> NoReturn:
    pytest.skip("not in a quick session: it trains")
