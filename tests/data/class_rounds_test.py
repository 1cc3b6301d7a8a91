"""The balanced order equals a slow reference, and does not depend on the calls."""

import itertools
import pathlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from trainer.config import augment_list
from trainer.data import class_rounds, sources
from trainer.data.bad_examples import BadExamples
from trainer.data.class_rounds import balanced_order
from trainer.data.pipeline import ExampleStream, training
from trainer.data.shuffle import example_indices


def labels_of(sizes: list[int]) -> np.ndarray:
    """Labels of classes of these sizes, mixed."""
    return np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))


def reference(labels: np.ndarray, seed: int, position: int) -> int:
    """The example at a position, from the definition."""
    classes = max(labels) + 1
    round_seed, *class_seeds = class_rounds.seeds(seed, classes)
    number, place = divmod(position, classes)
    of_round = range(number * classes, (number + 1) * classes)
    drawn = int(example_indices(list(of_round), classes, round_seed)[place])
    members = [index for index, label in enumerate(labels) if label == drawn]
    at = int(example_indices([number], len(members), class_seeds[drawn])[0])
    return members[at]


# 4,097 and 65,537 are the sizes for which the op uses too few bits.
SIZES = [[3], [1, 1], [1, 2, 7, 30], [4096, 5, 4097, 5000, 1], [4098, 65_537]]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_it_equals_the_definition(sizes):
    labels, rng = labels_of(sizes), np.random.default_rng(1)
    positions = np.concatenate([np.arange(12), rng.integers(0, 2**40, 12)])
    for seed in (0, 2**63 - 1):
        found = balanced_order(labels, len(sizes), seed)(positions).numpy()
        assert found.tolist() == [reference(labels, seed, int(p)) for p in positions]


def test_a_round_has_each_class_once_and_a_class_repeats_nothing_before_its_end():
    sizes = [1, 4, 9]
    labels = labels_of(sizes)
    found = balanced_order(labels, 3, 7)(np.arange(3 * 36)).numpy()
    rounds = labels[found].reshape(36, 3)
    assert all(sorted(each) == [0, 1, 2] for each in rounds.tolist())
    assert len({tuple(each) for each in rounds.tolist()}) == 6  # All orders of three classes.
    for label, size in enumerate(sizes):
        draws = found[labels[found] == label].reshape(-1, size)
        assert all(len({*epoch}) == size for epoch in draws.tolist())
        assert size < 3 or len({tuple(epoch) for epoch in draws.tolist()}) > 1


def test_it_has_its_golden_values():
    """Frozen: a change here means that no run can be resumed."""
    order = balanced_order(np.repeat([0, 1, 2], [2, 5, 5000]), 3, 3)
    golden = [0, 3, 1800, 5, 1, 4572, 6, 1349, 0, 4527, 2, 1]
    assert order(np.arange(12)).numpy().tolist() == golden
    assert order(10**12 + np.arange(6)).numpy().tolist() == [2, 2455, 0, 6, 1910, 6]


def test_examples_without_a_label_are_never_drawn():
    labels = np.array([-1, 0, -1, 1, 1, -1])
    assert {*balanced_order(labels, 2, 0)(np.arange(40)).numpy()} == {1, 3, 4}


@settings(deadline=None, max_examples=30)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=5),
    first=st.integers(0, 2**40),
    cuts=st.lists(st.integers(1, 60), min_size=1, max_size=5),
    seed=st.integers(0, 2**63 - 1),
)
def test_batching_changes_nothing(sizes, first, cuts, seed):
    order = balanced_order(labels_of(sizes), len(sizes), seed)
    positions = first + np.arange(sum(cuts))
    parts = [order(piece).numpy() for piece in np.split(positions, np.cumsum(cuts)[:-1])]
    np.testing.assert_array_equal(np.concatenate(parts), order(positions).numpy())


def test_encoded_examples_come_in_the_same_order(tmp_path):
    """Their chunks are read in parallel, and come in order."""
    for label, count in (("cat", 20), ("dog", 3)):
        (tmp_path / "train" / label).mkdir(parents=True)
        for number in range(count):
            pixels = np.full((8, 8, 3), 10 * number, np.uint8)
            Image.fromarray(pixels).save(tmp_path / "train" / label / f"{number}.png")
    bad = BadExamples(skip=True)  # With it, the set stays encoded.
    source = sources.load(f"image_folder:{tmp_path}", "train", None, 8, bad=bad)
    labels = sources.labels(source)
    assert np.bincount(labels).tolist() == [20, 3]
    order = balanced_order(labels, 2, 3)
    where = {"replicas": 1, "local_replicas": range(1), "micro_batch_size": 24}
    dataset = training(
        ExampleStream(source, augment_list.parse("none"), 3, bad, order=order), position=7, **where
    )
    images, found, _ = next(dataset.as_numpy_iterator())
    indices = order(np.arange(7, 31)).numpy()
    assert found.tolist() == labels[indices].tolist()
    numbers = [int(pathlib.Path(source.describe(index)).stem) for index in indices]
    np.testing.assert_array_equal(images[:, 0, 0, 0], 10 * np.array(numbers))


def test_no_layout_growth_or_restart_changes_the_stream(numbered):
    """Layouts that change, as by growth and on other replicas, give the examples of one call."""
    images = numbered(50)
    classes = np.arange(50) // 7 % 5
    order = balanced_order(classes, 5, 3)
    stream = ExampleStream(images, augment_list.parse("none"), 3, order=order)
    position, seen = 1000, []
    for replicas, b, micro_steps in ((1, 5, 3), (4, 3, 2), (2, 7, 1), (1, 16, 1)):
        where = {"replicas": replicas, "local_replicas": range(replicas)}
        dataset = training(stream, position=position, micro_batch_size=b, **where)
        count = replicas * micro_steps
        for _, labels, first in itertools.islice(dataset.as_numpy_iterator(), count):
            assert first == 1000 + len(seen)
            seen.extend(labels)
        position += count * b
    np.testing.assert_array_equal(seen, order(np.arange(1000, position)).numpy())
