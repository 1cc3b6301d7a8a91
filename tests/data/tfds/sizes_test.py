"""Counts the examples of splits, from names and from prepared sets, without TensorFlow."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from trainer.data.tfds.sizes import KNOWN_SIZES, count_examples
from trainer.errors import UserError


@pytest.mark.parametrize(
    "dataset, split, examples",
    [
        ("cifar10", "train", 50_000),
        ("imagenet2012", "train", 1_281_167),
        ("imagenet2012", "validation", 50_000),
        ("fashion_mnist", "train+test", 70_000),
        ("fashion_mnist", "train[:90%]", 54_000),
        ("cifar10", "train[10%:]+test[:5]", 45_005),
        ("cifar10", "train[-100:]", 100),
        ("svhn_cropped", "train+extra", 604_388),
        ("emnist/letters", "train[1:]", 88_799),
    ],
)
def test_splits_of_well_known_names_are_counted(dataset, split, examples, tmp_path):
    assert count_examples(dataset, split, str(tmp_path)) == examples


@pytest.mark.parametrize(
    "split", ["trian", "train[:", "", "train[5:3]", "train[:0]", "train[60000:]"]
)
def test_errors_about_bad_splits_name_the_good_ones(split):
    with pytest.raises(UserError, match=r"(?s)cifar10 .*train \(50,000\), test \(10,000\)"):
        count_examples("cifar10", split, None)


def test_sets_that_are_not_prepared_have_no_count(tmp_path):
    assert count_examples("plant_village", "train", str(tmp_path)) is None
    assert count_examples("cifar10", "train[:1shard]", str(tmp_path)) is None


def test_an_unknown_name_is_refused_with_a_suggestion(tmp_path):
    with pytest.raises(UserError, match=r"--dataset=fashion_minst: .*did you mean fashion_mnist"):
        count_examples("fashion_minst", "train", str(tmp_path))


def test_splits_of_a_prepared_set_are_counted(write_set):
    features = {"image": tfds.features.Image(shape=(2, 2, 1)), "label": np.int64}
    example = {"image": np.zeros((2, 2, 1), np.uint8), "label": 0}
    data_dir = write_set("eleven", features, {"train": [example] * 11, "dev": [example] * 4})
    assert count_examples("eleven", "train", data_dir) == 11
    assert count_examples("eleven", "train[:50%]+dev", data_dir) == 10
    with pytest.raises(UserError, match=r"Choose one of train \(11\), dev \(4\)"):
        count_examples("eleven", "test", data_dir)


def test_a_prepared_set_counts_more_than_its_well_known_name(write_set, tmp_path):
    """A part of a well-known set may be prepared under its name."""
    features = {"image": tfds.features.Image(shape=(2, 2, 1)), "label": np.int64}
    example = {"image": np.zeros((2, 2, 1), np.uint8), "label": 0}
    data_dir = write_set("cifar10", features, {"train": [example] * 11})
    version = str(tfds.builder_cls("cifar10").VERSION)
    folder = (tmp_path / "cifar10" / "1.0.0").rename(tmp_path / "cifar10" / version)
    info = folder / "dataset_info.json"
    info.write_text(info.read_text().replace("1.0.0", version))
    assert count_examples("cifar10", "train", data_dir) == 11
    assert count_examples("cifar10", "train[:1shard]", data_dir) == 11
    assert count_examples("cifar10", "train", str(tmp_path / "elsewhere")) == 50_000
    (tmp_path / "cifar100").mkdir()
    assert count_examples("cifar100", "train", data_dir) == 50_000


def test_prepared_fashion_mnist_has_its_well_known_sizes(fashion_mnist_test):
    info = tfds.builder("fashion_mnist").info
    sizes = {name: split.num_examples for name, split in info.splits.items()}
    assert sizes == KNOWN_SIZES["fashion_mnist"]


def test_counting_does_not_import_tensorflow(fashion_mnist_test):
    """Counts by name, with split syntax and from a prepared set."""
    program = (
        "import sys\n"
        "from trainer.data.tfds.sizes import count_examples as count\n"
        "assert count('cifar10', 'train', None) == 50_000\n"
        "assert 'tensorflow_datasets' not in sys.modules\n"
        "assert count('cifar10', 'train[:90%]', None) == 45_000\n"
        "assert count('fashion_mnist:3.0.1', 'test', None) == 10_000\n"
        "assert 'tensorflow' not in sys.modules, 'TensorFlow was imported'\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_slice_of_all_splits_is_refused():
    """TFDS does not implement it."""
    assert count_examples("fashion_mnist", "all", None) == 70_000
    with pytest.raises(UserError, match=r"'all\[:50%\]'.* is unknown, ill-formed or empty"):
        count_examples("fashion_mnist", "all[:50%]", None)
