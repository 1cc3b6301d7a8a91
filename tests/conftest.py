"""Options, signals and exit of every process of a session; its fixtures: tests.support.fixtures."""

import gc
import os
import signal
import sys

import pytest

from tests.support import forked_process

# Before TensorFlow's import, which takes 2 s longer with Python's own threshold.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
gc.set_threshold(100_000)  # As in the program.

_STATUS = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    # In the background of a script, SIGINT is ignored, also in the processes that tests start.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    forked_process.share()
    # With -n, this process runs no test, and its workers wait until it is configured.
    if config.getoption("dist", "no") == "no" or config.getoption("collectonly"):
        config.pluginmanager.import_plugin("tests.support.fixtures")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--quick", action="store_true", help="Skip what starts a process or a training run."
    )
    parser.addoption("--kills", type=int, default=5, help="SIGKILLs over one run in tests/faults.")
    parser.addoption(
        "--change_kills", type=int, default=2, help="SIGKILLs around changes of the workers."
    )
    parser.addoption(
        "--orders", type=int, default=10_000, help="Epochs and seeds whose orders are compared."
    )


def pytest_collection_finish() -> None:
    forked_process.remember_environment()
    # A collection takes 0.8 s if it visits all that TensorFlow's import leaves.
    gc.collect()
    gc.freeze()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    session.config.stash[_STATUS] = exitstatus


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Ends as main.entry: a traceback may hold an iterator whose threads call Python."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(config.stash.get(_STATUS, 4))
