"""Fixtures: tiny sets that TFDS writes, Fashion-MNIST, and images in memory."""

import functools
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from tests.support import tfds_sets
from tests.support.encoded_folders import write_folder
from trainer.data.in_memory import InMemoryDataset
from trainer.data.sources import load


@pytest.fixture
def write_set(tmp_path) -> Callable[..., str]:
    """write_set(name, features, {split: [example, ...]}, keys, file_format) → data_dir."""

    def write(
        name: str,
        features: dict,
        splits: dict[str, Sequence[dict]],
        keys: tuple[str, str] | None = ("image", "label"),
        file_format: str = "tfrecord",
    ) -> str:
        tfds_sets.write(tmp_path, name, features, splits, keys=keys, file_format=file_format)
        return str(tmp_path)

    return write


@pytest.fixture(scope="session")
def fashion_mnist_test() -> InMemoryDataset:
    """Fashion-MNIST's 10,000 test images, prepared if they were not."""
    return load("fashion_mnist", "test", None, None)


@pytest.fixture
def numbered() -> Callable[[int], InMemoryDataset]:
    """numbered(N) → 3 × 3 images with 2 channels, whose pixels and labels are their numbers."""

    def make(examples: int) -> InMemoryDataset:
        images = np.zeros((examples, 3, 3, 2), np.uint8)
        images[..., 0] = (np.arange(examples) % 256)[:, None, None]
        images[..., 1] = (np.arange(examples) // 256)[:, None, None]
        return InMemoryDataset(
            images, np.arange(examples), tuple(map(str, range(examples))), "numbered"
        )

    return make


@pytest.fixture
def touch(tmp_path):
    """Returns a function that makes empty files from their paths and returns their root."""

    def make(*names: str) -> str:
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return str(tmp_path)

    return make


@pytest.fixture
def folder(tmp_path) -> Callable[..., str]:
    """folder(N, {number: replacement}, split) → a set of N encoded images."""
    return functools.partial(write_folder, tmp_path)
