"""One process-wide setting for every test: TensorFlow sees four logical CPU devices."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import pytest
import tensorflow as tf


def pytest_configure() -> None:
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 4)


@pytest.fixture
def cpus() -> list[str]:
    """Names of the four logical CPU devices."""
    return [device.name for device in tf.config.list_logical_devices("CPU")]
