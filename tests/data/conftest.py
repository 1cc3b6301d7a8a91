"""Fixtures: tiny sets that TFDS writes, Fashion-MNIST, and images in memory."""

import functools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
import tensorflow_datasets as tfds

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
        class Tiny(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
            VERSION = tfds.core.Version("1.0.0")

            def _info(self) -> tfds.core.DatasetInfo:
                return tfds.core.DatasetInfo(
                    builder=self,
                    features=tfds.features.FeaturesDict(features),
                    supervised_keys=keys,
                    disable_shuffling=True,
                )

            def _split_generators(self, dl_manager) -> dict[str, Iterator]:
                return {split: enumerate(examples) for split, examples in splits.items()}

            def _generate_examples(self) -> None:
                raise NotImplementedError

        Tiny.name = name
        Tiny(data_dir=tmp_path, file_format=file_format).download_and_prepare()
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
