"""Each epoch of both orders is a permutation, does not change, and is random by three statistics.

Version 1 repeats, but runs that use it keep its numbers. Tests that it fails apply to version 2.
"""

import functools
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.data import shuffle
from trainer.data.shuffle import VERSIONS, example_indices

N = 60_000
EPOCHS = 6


def epoch_of(examples: int, epoch: int, seed: int, version: int = 2) -> np.ndarray:
    positions = np.arange(examples, dtype=np.int64) + epoch * examples
    return example_indices(positions, examples, seed, version).numpy()


@pytest.fixture(scope="module", params=VERSIONS)
def epochs(request) -> np.ndarray:
    """Indices of the first epochs, [EPOCHS, N]."""
    return np.stack([epoch_of(N, epoch, 7, request.param) for epoch in range(EPOCHS)])


@pytest.mark.parametrize("examples", [1, 2, 3, 4, 5, 7, 16, 17, 97, 255, 256, 257, 1000, 4099])
@pytest.mark.parametrize("seed", [0, 1, 2**31 - 1])
@pytest.mark.parametrize("version", VERSIONS)
def test_every_epoch_is_a_permutation(examples, seed, version):
    for epoch in (0, 1, 2, 10**6):
        assert sorted(epoch_of(examples, epoch, seed, version)) == list(range(examples))


@pytest.mark.parametrize("examples", [4095, 4096, 4097, 65_521, 65_536, 65_537, 65_538, 262_145])
def test_epochs_are_permutations_at_sizes_where_the_method_changes(examples):
    for epoch, seed in ((0, 0), (2**62 // examples - 1, 2**63 - 1)):
        np.testing.assert_array_equal(np.sort(epoch_of(examples, epoch, seed)), range(examples))


@settings(deadline=None, max_examples=60)
@given(
    examples=st.integers(1, 5000),
    position=st.integers(0, 2**62),
    seed=st.integers(0, 2**63 - 1),
)
def test_any_epoch_of_any_set_is_a_permutation(examples, position, seed):
    found = epoch_of(examples, position // examples, seed)
    np.testing.assert_array_equal(np.sort(found), range(examples))


def test_version_2_has_its_golden_values():
    """Frozen: a change here means that no run can be resumed."""
    golden = {
        (10, 0, 0): [9, 7, 4, 5, 8, 3, 6, 1, 0, 2],
        (10, 1, 0): [6, 7, 5, 0, 2, 1, 8, 4, 9, 3],
        (10, 0, 9223372036854775807): [4, 2, 1, 5, 8, 0, 6, 3, 9, 7],
        (10, 256, 0): [2, 5, 8, 0, 7, 6, 9, 3, 1, 4],
        (4096, 7, 1): [1271, 954, 1443, 2799, 3303],
        (4097, 7, 1): [2181, 221, 501, 2738, 189],
        (65_537, 3, 1): [61228, 23120, 18375, 49549, 35611],
        (60000, 0, 1): [35375, 48322, 11863, 46247, 48411],
        (60000, 199, 1): [1427, 30447, 51180, 47585, 975],
        (60000, 256, 2147483648): [56462, 6994, 16804, 28000, 35766],
        (1281167, 89, 1): [725125, 907787, 616925, 460728, 296572],
        (1281167, 1099511627776, 9223372036854775807): [696374, 972117, 626236, 200869, 366505],
    }
    for (examples, epoch, seed), first in golden.items():
        positions = np.arange(len(first), dtype=np.int64) + epoch * examples
        assert example_indices(positions, examples, seed, 2).numpy().tolist() == first


def test_version_1_has_its_golden_values():
    """Frozen: a change here means that no old run can be resumed."""
    epoch_of_1 = functools.partial(epoch_of, version=1)
    assert epoch_of_1(10, 0, seed=0).tolist() == [8, 4, 5, 6, 3, 0, 9, 7, 1, 2]
    assert epoch_of_1(10, 1, seed=0).tolist() == [6, 1, 0, 4, 9, 5, 2, 8, 7, 3]
    assert epoch_of_1(10, 0, seed=2**31 - 1).tolist() == [9, 6, 7, 8, 4, 1, 3, 0, 2, 5]
    assert epoch_of_1(N, 0, seed=1)[:6].tolist() == [14668, 32494, 45275, 46586, 46827, 55614]
    assert epoch_of_1(N, 199, seed=1)[:6].tolist() == [43430, 43827, 20295, 40797, 53127, 44827]
    assert epoch_of_1(1_281_167, 89, seed=1)[:6].tolist() == [
        989921,
        136759,
        208085,
        681382,
        964666,
        664783,
    ]


@settings(deadline=None, max_examples=60)
@given(
    examples=st.one_of(st.integers(1, 50), st.just(5000)),
    first=st.integers(0, 2**40),
    cuts=st.lists(st.integers(1, 60), min_size=1, max_size=5),
    seed=st.integers(0, 2**63 - 1),
    version=st.sampled_from(VERSIONS),
)
def test_batching_changes_nothing(examples, first, cuts, seed, version):
    """One call over several epochs gives the same indices as calls for parts of it."""
    positions = first + np.arange(sum(cuts))
    whole = example_indices(positions, examples, seed, version).numpy()
    pieces = np.split(positions, np.cumsum(cuts)[:-1])
    parts = [example_indices(piece, examples, seed, version).numpy() for piece in pieces]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1])


# The bounds are 5 standard deviations for random permutations: 1/√N = 0.0041 for a correlation,
# √(2/dof) for χ²/dof. The 4 rounds of TensorFlow's public wrapper give 0.09, 0.9 and 1637.


def test_neighbours_in_an_epoch_are_uncorrelated(epochs):
    assert max(abs(correlation(epoch[:-1], epoch[1:])) for epoch in epochs) < 5 / N**0.5


def test_epochs_are_uncorrelated(epochs):
    pairs = itertools.combinations(epochs, 2)
    assert max(abs(correlation(a, b)) for a, b in pairs) < 5 / N**0.5


def test_differences_of_neighbours_are_uniform(epochs):
    bins = 100
    for epoch in epochs:
        differences = np.diff(epoch) % N
        counts = np.bincount(differences * bins // N, minlength=bins)
        expected = (N - 1) / bins
        chi_squared = np.sum((counts - expected) ** 2 / expected) / (bins - 1)
        assert chi_squared < 1 + 5 * (2 / (bins - 1)) ** 0.5


@pytest.mark.parametrize("version", VERSIONS)
def test_seeds_and_epochs_differ(version):
    epochs = [epoch_of(N, epoch, 7, version) for epoch in (0, 1)]
    other = epoch_of(N, 0, 8, version)
    # Two random permutations agree in 1 ± 1 places.
    assert np.count_nonzero(other == epochs[0]) < 10
    assert np.count_nonzero(epochs[1] == epochs[0]) < 10
    assert abs(correlation(other, epochs[0])) < 5 / N**0.5


MASK = 2**64 - 1
PLACES = 64  # compared in each epoch; two random epochs of N = 1,000 agree with probability 1e-190
# Keys that are cut repeat first at powers of two.
STRUCTURED = sorted({0, *(2**i + k for i in range(1, 63) for k in (-1, 0, 1))})


def reference_splitmix64(words: np.ndarray) -> np.ndarray:
    z = words + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def reference_bits(seeds: np.ndarray, epochs: np.ndarray) -> np.ndarray:
    """The words that determine each epoch's permutation, uint64 [e]."""
    words = reference_splitmix64(reference_splitmix64(seeds) + np.uint64(2**63 - 1))
    return reference_splitmix64(words + epochs)


def beginnings(examples: int, bits: np.ndarray) -> np.ndarray:
    """The first examples of the epochs whose keys are `bits`: [e, places]."""
    permuted = shuffle._sorted if examples <= shuffle.SORTED else shuffle._passed
    places = min(PLACES, examples)
    parts = []
    for part in np.array_split(bits, -(-len(bits) // 2000)):  # 2000 × 1000 words are 16 MB.
        place = np.tile(np.arange(places), len(part))
        row = np.repeat(np.arange(len(part), dtype=np.int32), places)
        parts.append(permuted(place, row, part, examples).numpy().reshape(-1, places))
    return np.concatenate(parts)


def numbers(count: int, structured: int) -> np.ndarray:
    """The numbers below `count`, and those of STRUCTURED below `structured`, uint64."""
    return np.array(sorted({*range(count), *(n for n in STRUCTURED if n < structured)}), np.uint64)


@pytest.mark.parametrize("examples", [1_000, 60_000, 1_281_167])
def test_no_two_epochs_and_no_two_seeds_have_the_same_order(examples, pytestconfig):
    count = pytestconfig.getoption("orders")
    epochs, seeds = numbers(count, 2**62 // examples), numbers(count, 2**63)
    for bits in (
        reference_bits(np.full(len(epochs), 7, np.uint64), epochs),
        reference_bits(seeds, np.full(len(seeds), 3, np.uint64)),
    ):
        found = beginnings(examples, bits)
        assert len(np.unique(found, axis=0)) == len(found)


@pytest.mark.parametrize("examples", [5, 1_000, 60_000])
@pytest.mark.parametrize(("seed", "epoch"), [(0, 0), (7, 3), (2**31, 256), (2**63 - 1, 10**12)])
def test_the_bits_of_an_epoch_equal_the_reference(examples, seed, epoch):
    bits = reference_bits(np.array([seed], np.uint64), np.array([epoch], np.uint64))
    found = epoch_of(examples, epoch, seed)[:PLACES]
    np.testing.assert_array_equal(found, beginnings(examples, bits)[0])


def test_a_small_epoch_equals_the_reference():
    bits = reference_bits(np.array([11], np.uint64), np.array([300], np.uint64))
    steps = np.arange(100, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    words = reference_splitmix64(bits + steps).view(np.int64)
    np.testing.assert_array_equal(epoch_of(100, 300, 11), np.argsort(-words.astype(object)))


@pytest.mark.parametrize("examples", [2, 3, 4, 5, 6])
def test_all_permutations_are_equally_frequent(examples):
    """Tests χ² over 12,000 epochs, and over as many seeds."""
    every, kinds = 12_000, math.factorial(examples)
    numbers, same = np.arange(every, dtype=np.uint64), np.full(every, 5, np.uint64)
    for bits in (reference_bits(same, numbers), reference_bits(numbers, same)):
        _, counts = np.unique(beginnings(examples, bits), axis=0, return_counts=True)
        assert len(counts) == kinds
        chi_squared = np.sum((counts - every / kinds) ** 2) / (every / kinds)
        assert abs(chi_squared - (kinds - 1)) < 4 * (2 * (kinds - 1)) ** 0.5


def test_the_order_differs_after_256_epochs_and_for_seeds_256_apart():
    """Version 1 has the same order there at N = 60,000, because the op cuts its keys to 8 bits."""
    np.testing.assert_array_equal(epoch_of(N, 0, 0, 1), epoch_of(N, 256, 256, 1))
    first = epoch_of(N, 0, 0)
    for other in (epoch_of(N, 256, 0), epoch_of(N, 0, 256), epoch_of(N, 2**40, 0)):
        assert np.count_nonzero(other == first) < 10
        assert abs(correlation(other, first)) < 5 / N**0.5
