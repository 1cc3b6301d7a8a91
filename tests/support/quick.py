"""A quick session: a test that starts a process or a training run is skipped when it does so.

Files that take long are left out as a whole.
"""

import multiprocessing.process
import sys
from typing import Any, NoReturn

import pytest

from trainer.training.loop import TrainingLoop

# Files and folders whose tests build large models, trace long graphs or decode for seconds. They
# take over ten minutes of one core.
_LONG = (
    "tests/commands/image_sizes_test.py",
    "tests/data/bad_examples_test.py",
    "tests/data/chunk_decoding_test.py",
    "tests/data/encoded_batch_test.py",
    "tests/data/pipeline_test.py",
    "tests/data/sources_test.py",
    "tests/data/tfds/prepare_test.py",
    "tests/distributed/tpu_api_test.py",
    "tests/faults/",
    "tests/nn/ghostify_test.py",
    "tests/nn/resizable_test.py",
    "tests/nn/models/",
    "tests/run_dir/exports_test.py",
    "tests/training/averaging_test.py",
    "tests/training/balance_test.py",
    "tests/training/evaluation_test.py",
    "tests/training/input_rate_test.py",
    "tests/training/keras_behaviour_test.py",
    "tests/training/micro_batch_search_test.py",
    "tests/training/mixed_targets_test.py",
    "tests/training/parameter_update_test.py",
    "tests/training/phases_test.py",
    "tests/training/prediction_test.py",
    "tests/training/pretrained_test.py",
    "tests/training/step_test.py",
    "tests/training/tpu_graph_test.py",
    "tests/training/xla_test.py",
)
_STARTS = {"subprocess.Popen", "os.fork", "os.posix_spawn", "os.system"}


class Quick:
    """A plugin of pytest. Tests need no marker for it: what they do decides."""

    def __init__(self) -> None:
        self._in_test = False
        sys.addaudithook(self._refuse_process)
        TrainingLoop.run = _refuse_training  # type: ignore[method-assign]
        # The start of a process by spawn is not an audit event.
        multiprocessing.process.BaseProcess.start = _refuse_start  # type: ignore[method-assign]

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


def _refuse_start(*_: Any) -> NoReturn:
    pytest.skip("not in a quick session: it starts a process")


def _refuse_training(*_: Any) -> NoReturn:
    pytest.skip("not in a quick session: it trains")
