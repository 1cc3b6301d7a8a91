"""Any batch sizes and replicas partition the positions; evaluation sees each example once."""

import dataclasses
import itertools

import numpy as np
import pytest
import tensorflow as tf

from trainer.config import augment_list
from trainer.data.in_memory import InMemoryDataset, aligned_empty, as_tensor
from trainer.data.pipeline import ExampleStream, evaluation, training
from trainer.data.shuffle import example_indices
from trainer.distributed.replica_batches import next_per_replica

SEED = 5


def take(images: InMemoryDataset, n: int, augment: str = "none", **where) -> list[tuple]:
    """The first n elements of the training pipeline, as arrays."""
    dataset = training(ExampleStream(images, augment_list.parse(augment), SEED), **where)
    return list(itertools.islice(dataset.as_numpy_iterator(), n))


@pytest.mark.parametrize("examples", [1, 7, 96, 300])
def test_growth_and_changing_replicas_keep_the_order(numbered, examples):
    """Each example comes once an epoch while b grows and the number of replicas is 1, 4, 2."""
    images = numbered(examples)
    layouts = itertools.chain(
        [(1, 5, 3), (1, 7, 2), (4, 3, 2), (4, 11, 1)], itertools.repeat((2, 13, 7))
    )
    position, seen = 0, []
    while position < 3 * examples:
        replicas, b, micro_steps = next(layouts)
        where = {"position": position, "micro_batch_size": b, "replicas": replicas}
        elements = take(images, replicas * micro_steps, local_replicas=range(replicas), **where)
        firsts = [int(first) for _, _, first in elements]
        assert firsts == list(range(position, position + replicas * micro_steps * b, b))
        for pixels, labels, _ in elements:
            assert pixels.shape == (b, 3, 3, 2)
            np.testing.assert_array_equal(pixels[:, 1, 1] @ np.array([1, 256]), labels)
            seen.extend(labels)
        position += replicas * micro_steps * b
    for epoch in range(3):
        assert sorted(seen[epoch * examples : (epoch + 1) * examples]) == list(range(examples))
    expected = example_indices(np.arange(position), examples, SEED).numpy()
    np.testing.assert_array_equal(seen, expected)


# Each layout, both with little augmentation and with much.
@pytest.mark.parametrize(
    ("augment", "layouts"),
    [
        ("none", ((1, 1), (4, 4))),
        ("medium", ((2, 12), (3, 8))),
        ("strong", ((1, 1), (4, 4))),
        ("crop,randaugment,erasing", ((2, 12), (3, 8))),
    ],
)
def test_a_position_yields_the_same_in_any_layout(numbered, augment, layouts):
    images = numbered(50)
    images = dataclasses.replace(images, images=images.images[..., :1])
    start, count = 10**9 + 17, 48
    found = []
    for replicas, b in ((1, 48), *layouts):
        where = {"position": start, "micro_batch_size": b, "replicas": replicas}
        elements = take(images, count // b, augment, local_replicas=range(replicas), **where)
        found.append([np.concatenate(part) for part in list(zip(*elements, strict=True))[:2]])
    for pixels, labels in found[1:]:
        np.testing.assert_array_equal(pixels, found[0][0])
        np.testing.assert_array_equal(labels, found[0][1])


def test_hosts_share_the_replicas(numbered):
    """Two hosts with two replicas each get the same micro-batches as one host with four."""
    images = numbered(40)
    where = {"position": 3, "micro_batch_size": 5, "replicas": 4}
    alone = take(images, 12, local_replicas=range(4), **where)
    hosts = [take(images, 6, local_replicas=range(h, h + 2), **where) for h in (0, 2)]
    next_per_replica = [hosts[r // 2][j * 2 + r % 2] for j in range(3) for r in range(4)]
    for mine, theirs in zip(next_per_replica, alone, strict=True):
        for a, b in zip(mine, theirs, strict=True):
            np.testing.assert_array_equal(a, b)


def test_shapes_are_static_and_fit_a_strategy(numbered, cpus):
    images = numbered(40)
    strategy = tf.distribute.MirroredStrategy(cpus)

    dataset = training(
        ExampleStream(images, augment_list.parse("medium"), SEED),
        position=0,
        micro_batch_size=6,
        replicas=4,
        local_replicas=range(4),
    )
    image_spec, label_spec, first_spec = dataset.element_spec
    assert image_spec == tf.TensorSpec([6, 3, 3, 2], tf.uint8)
    assert label_spec == tf.TensorSpec([6], tf.int32)
    assert first_spec == tf.TensorSpec([], tf.int64)
    elements = iter(dataset)
    for step in range(3):
        _, _, first = next_per_replica(strategy, elements)
        firsts = [int(value) for value in strategy.experimental_local_results(first)]
        assert firsts == [step * 24 + replica * 6 for replica in range(4)]


@pytest.mark.parametrize("examples", [1, 5, 12, 13, 100])
@pytest.mark.parametrize("batch_size, shards", [(1, 1), (4, 1), (5, 3), (12, 4), (128, 2)])
def test_evaluation_covers_each_example_once(numbered, examples, batch_size, shards):
    batches = list(
        evaluation(numbered(examples), batch_size=batch_size, shards=shards).as_numpy_iterator()
    )
    assert len(batches) % shards == 0
    assert (len(batches) - shards) * batch_size < examples
    seen = []
    for pixels, labels, weights in batches:
        assert pixels.shape == (batch_size, 3, 3, 2)
        assert weights.shape == labels.shape == (batch_size,)
        assert set(weights) <= {0, 1}
        np.testing.assert_array_equal(pixels[:, 1, 1] @ np.array([1, 256]), labels)
        seen.extend(labels[weights == 1])
    assert seen == list(range(examples))


@pytest.mark.parametrize("local", [1, 2])
def test_hosts_share_one_evaluation(numbered, local):
    """Batches go in turn to the replicas of three hosts with one or two replicas each."""
    images, shards = numbered(100), 3 * local
    whole = list(evaluation(images, batch_size=7, shards=shards).as_numpy_iterator())
    for host in range(3):
        own = range(host * local, (host + 1) * local)
        found = evaluation(images, batch_size=7, shards=shards, local_shards=own)
        wanted = [batch for i, batch in enumerate(whole) if i % shards in own]
        for ours, theirs in zip(found.as_numpy_iterator(), wanted, strict=True):
            for one, other in zip(ours, theirs, strict=True):
                np.testing.assert_array_equal(one, other)


def test_images_are_shared_not_copied():
    """The tensor is a view of an aligned array, as `load` makes, and a copy of an unaligned one."""
    array = aligned_empty((4, 3, 3, 1))
    array[:] = 7
    tensor = as_tensor(array)
    array[2] = 9
    np.testing.assert_array_equal(tensor, array)
    unaligned = np.arange(65, dtype=np.uint8)[1:].reshape(4, 4, 4, 1)
    np.testing.assert_array_equal(as_tensor(unaligned), unaligned)
    array.flags.writeable = False  # NumPy exports no array that is read-only.
    np.testing.assert_array_equal(as_tensor(array), array)


def test_the_set_is_not_copied_into_the_graph():
    """Five pipelines over 200 MB take far less additional memory than one copy."""

    def resident_megabytes() -> float:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * 4096 / 1e6

    shape = (200_000, 32, 32, 1)
    array = aligned_empty(shape)
    array[:] = 1
    images = InMemoryDataset(array, np.zeros(shape[0], np.int64), tuple("0123456789"), "big")
    before = resident_megabytes()
    where = {"micro_batch_size": 8, "replicas": 1, "local_replicas": range(1)}
    iterators = []
    for position in range(5):
        stream = ExampleStream(images, augment_list.parse("medium"), 0)
        elements = iter(training(stream, position=position, **where))
        next(elements)
        iterators.append(elements)
    assert resident_megabytes() - before < 100


def test_the_pipeline_starts_at_any_position_at_once(numbered):
    """The pipeline does not skip to its first position, which would take days here."""
    images = numbered(50)
    where = {"micro_batch_size": 2, "replicas": 1, "local_replicas": range(1)}
    (element,) = take(images, 1, position=10**15, **where)
    np.testing.assert_array_equal(
        element[1], example_indices(np.arange(10**15, 10**15 + 2), 50, SEED)
    )


@pytest.mark.parametrize(
    ("augment", "sizes"), [("none", (7, 12, 20)), ("medium", (7,)), ("crop,randaugment", (20,))]
)
def test_images_are_resized_before_they_are_augmented(numbered, augment, sizes):
    """The images are those of a set that was resized beforehand, in any layout."""
    images = numbered(50)
    pixels = np.random.default_rng(0).integers(0, 256, (50, 12, 12, 1), np.uint8)
    images = dataclasses.replace(images, images=pixels)
    for size in sizes:
        small = tf.image.resize(pixels, (size, size), antialias=True).numpy()
        resized = dataclasses.replace(images, images=np.clip(np.round(small), 0, 255).astype("u1"))
        where = {"position": 41, "local_replicas": range(2), "replicas": 2}
        found = take(images, 4, augment, micro_batch_size=6, image_size=size, **where)
        wanted = take(resized, 8, augment, micro_batch_size=3, **where)
        for part in range(2):  # Consecutive positions, whatever the micro-batch.
            ours, theirs = (
                np.concatenate([element[part] for element in elements])
                for elements in (found, wanted)
            )
            np.testing.assert_array_equal(ours, theirs)
