"""Fixtures of all tests, and TensorFlow's one setting for them: four logical CPU devices."""

import datetime
import gc
import secrets
import threading
from collections.abc import Iterator

import pytest
import tensorflow as tf

from tests.support import bucket_servers, messages, runs
from tests.support.quick import Quick
from trainer.buckets import client
from trainer.data.tfds.prepare import prepare
from trainer.distributed.strategy import share_cores


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("quick"):
        config.pluginmanager.register(Quick())
    # What connect sets for ghost batches of 32: it cannot be changed once TensorFlow has started.
    tf.config.threading.set_intra_op_parallelism_threads(share_cores(1, 32)[1])
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 4)


@pytest.fixture
def cpus() -> list[str]:
    """Names of the four logical CPU devices."""
    return [device.name for device in tf.config.list_logical_devices("CPU")]


@pytest.fixture(scope="module", autouse=True)
def what_a_module_leaves() -> Iterator[None]:
    """Keeps later collections from visiting what the tests of a module leave in TensorFlow.

    At the end of a suite, a collection took 2.7 s, and a test that collects 25 times took 68 s.
    """
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """Messages of the program's log, while the test runs in this process."""
    with messages.logged() as found:
        yield found


@pytest.fixture(scope="session", params=bucket_servers.SCHEMES)
def bucket_server(request):
    """A server of Google Cloud Storage or S3 on this machine: its scheme and address."""
    with bucket_servers.server(request.param) as address:
        yield request.param, address


@pytest.fixture
def place(bucket_server, monkeypatch):
    """An empty folder in a bucket, behind a proxy; this process finds its server."""
    proxy = bucket_servers.Proxy(*bucket_server)
    found = bucket_servers.Place(bucket_server[0], proxy, f"runs-{secrets.token_hex(4)}/one")
    for name, value in found.environment.items():
        monkeypatch.setenv(name, value)
    # Clients of this process repeat a request as often as ever, but sooner: after 10 ms in place of
    # 100 ms, twice as long each time.
    sooner = {"init_backoff": datetime.timedelta(milliseconds=10)}
    monkeypatch.setitem(client._RETRIES, "backoff", sooner)
    yield found
    proxy.rule = lambda request: None
    for thread in threading.enumerate():
        if thread.name == "fetch-ahead":  # It would report its errors in another test.
            thread.join(30)
            assert not thread.is_alive()
    proxy.close()


@pytest.fixture(scope="session")
def fashion_mnist():
    """Prepared, for tests of what a process says: the first that needs it says that, too."""
    prepare("fashion_mnist", None)


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory):
    """A run of runs.SHORT in one go: its directory, and the finished process.

    It has a start of its own: runs that share their imports are compared with it.
    """
    model_dir = tmp_path_factory.mktemp("runs") / "uninterrupted"
    return model_dir, runs.train(model_dir, *runs.SHORT, start_of_its_own=True)
