"""Mixtures equal a slow reference from the papers, and no layout changes them."""

import math

import numpy as np
import pytest
import tensorflow as tf

from tests.data.augment_test import GAMMA, MASK, hash_of, splitmix64
from tests.support.configs import parsed
from trainer.config.augment_list import parse
from trainer.data import mixing
from trainer.data.in_memory import InMemoryDataset
from trainer.data.mixing import Mixing, mix, shares
from trainer.data.pipeline import ExampleStream, training
from trainer.errors import UserError

RNG = np.random.default_rng(0)
SEED = 2**62 + 11
BOTH = (0.4, 1.0)


def reference(images, labels, position, how):
    """Mixes image by image, with integers: λ is k / 65536."""
    ghost = how.ghost_batch_size
    _, height, width, _ = images.shape
    key = SEED ^ (171009412 << 32)
    mixed, found = images.copy(), []
    for i in range(len(images)):
        group = i - i % ghost
        words, of_group = (
            [splitmix64((hash_of(position + at, key) + n * GAMMA) & MASK) for n in range(5)]
            for at in (i, group)
        )
        shift = 1 + (of_group[3] >> 32) % (ghost - 1)
        partner = group + (i - group + shift) % ghost
        cut = how.mixup_alpha is None
        if None not in (how.mixup_alpha, how.cutmix_alpha):
            cut = (of_group[4] >> 32) % 2 == 1
        share = shares(how.cutmix_alpha if cut else how.mixup_alpha)[words[0] >> 52]
        if cut:
            spans = []
            for length, word in ((height, words[1]), (width, words[2])):
                half = int(length * math.sqrt(1 - share)) // 2
                centre = (word >> 32) % length
                spans.append(slice(max(centre - half, 0), min(centre + half, length)))
            rows, columns = spans
            mixed[i, rows, columns] = images[partner, rows, columns]
            area = (rows.stop - rows.start) * (columns.stop - columns.start)
            share = 1 - area / (height * width)
        else:
            k = int(share * 2**16)
            total = k * images[i].astype(int) + (2**16 - k) * images[partner].astype(int) + 2**15
            mixed[i] = total >> 16
        found.append((labels[i], labels[partner], share))
    return mixed, *map(np.array, zip(*found, strict=True))


@pytest.mark.parametrize("alphas", [(0.2, None), (None, 1.0), BOTH])
@pytest.mark.parametrize("shape", [(8, 6, 1), (5, 7, 3)])
@pytest.mark.parametrize(("ghost", "count"), [(2, 40), (7, 70), (32, 64)])
def test_mixtures_equal_the_reference(alphas, shape, ghost, count):
    how = Mixing(*alphas, ghost)
    images = RNG.integers(0, 256, (count, *shape), np.uint8)
    labels = RNG.integers(0, 10, count, np.int32)
    position = 2**40 // ghost * ghost
    found, names = mix(tf.constant(images), labels, tf.constant(position, tf.int64), how, SEED)
    wanted, *of_labels = reference(images, labels, position, how)
    np.testing.assert_array_equal(found, wanted)
    assert (found != images).numpy().any()
    for ours, theirs in zip(names, of_labels, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-7)


def test_each_image_is_the_partner_of_one_other_of_its_ghost_batch():
    """The images are their own index, so that with λ = 0 they show their partner's."""
    count, ghost = 21 * 500, 21
    indices = np.arange(count, dtype=np.int32)
    images = np.zeros((count, 1, 1, 1), np.uint8)
    _, names = mix(images, indices, tf.constant(0, tf.int64), Mixing(1.0, None, ghost), SEED)
    partners = names.partners.numpy()
    np.testing.assert_array_equal(np.sort(partners), indices)
    np.testing.assert_array_equal(partners // ghost, indices // ghost)
    shifts = ((partners - indices) % ghost).reshape(-1, ghost)
    assert (shifts == shifts[:, :1]).all()
    counts = np.bincount(shifts[:, 0], minlength=ghost)
    assert counts[0] == 0
    expected = 500 / 20
    assert ((counts[1:] - expected) ** 2 / expected).sum() < 43.8  # χ² of 19 at 0.999


@pytest.mark.parametrize(
    ("alpha", "distribution"),
    [
        (0.5, lambda x: 2 / np.pi * np.arcsin(np.sqrt(x))),
        (1.0, lambda x: x),
        (2.0, lambda x: 3 * x**2 - 2 * x**3),
        (3.0, lambda x: x**3 * (10 - 15 * x + 6 * x**2)),
    ],
)
def test_shares_are_quantiles_of_the_closed_form(alpha, distribution):
    found = shares(alpha)
    levels = (np.arange(4096) + 0.5) / 4096
    half = 2.0**-17  # A quantile is rounded to a multiple of 2⁻¹⁶.
    assert (distribution(np.maximum(found - half, 0)) <= levels + 1e-12).all()
    assert (levels - 1e-12 <= distribution(np.minimum(found + half, 1))).all()


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_shares_are_right_at_both_ends_of_the_flags_range(name):
    def of(alpha):
        config = parsed(f"--augment={name}", f"--{name}_alpha={alpha}")
        return shares(getattr(config, f"{name}_alpha"))

    assert set(of("5e-324").tolist()) == {0, 1}
    largest = of("1e6")
    assert largest.var() == pytest.approx(1 / (4 * (2e6 + 1)), rel=2e-3)
    assert np.abs(largest - 0.5).max() < 0.002
    with pytest.raises(UserError, match="must be above 0 and at most 1e6"):
        of("1e300")


@pytest.mark.parametrize("alpha", [1e-3, 0.1, 0.2, 0.8, 8.0, 1e4])
def test_shares_have_the_moments_of_the_distribution(alpha):
    found = shares(alpha)
    assert (found * 2**16 == np.round(found * 2**16)).all()
    np.testing.assert_array_equal(found, 1 - found[::-1])
    assert found.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=2e-3)
    # The fourth central moment of Beta(α, α).
    fourth = 3 / (16 * (2 * alpha + 1) * (2 * alpha + 3))
    assert ((found - 0.5) ** 4).mean() == pytest.approx(fourth, rel=5e-3)


def test_the_draws_are_uniform_and_independent():
    """Checks 60,000 mixtures: λ is uniform, and both kinds are equally frequent."""
    count, ghost = 60_000, 30
    zeros = np.zeros((count, 16, 16, 1), np.uint8)
    where = tf.constant(0, tf.int64)
    labels = np.zeros(count, np.int32)
    drawn = mix(zeros, labels, where, Mixing(1.0, None, ghost), SEED)[1].shares.numpy()
    below = np.searchsorted(np.sort(drawn), np.arange(1, 20) / 20) / count
    assert np.abs(below - np.arange(1, 20) / 20).max() < 1.95 / math.sqrt(count)
    assert abs(np.corrcoef(drawn[1:], drawn[:-1])[0, 1]) < 4 / math.sqrt(count)
    # Images of ghost batch j are all j mod 2 in places of even number: the mixture shows boxes.
    places = (np.arange(count) % 2 * 255).astype(np.uint8)
    images = np.broadcast_to(places[:, None, None, None], zeros.shape)
    mixed, names = mix(images, labels, where, Mixing(8.0, 1.0, ghost), SEED)
    grey = ((mixed.numpy() > 0) & (mixed.numpy() < 255)).any(axis=(1, 2, 3)).reshape(-1, ghost)
    other = np.bincount(grey.any(axis=1), minlength=2) / len(grey)
    # A ghost batch of mixup shows grey if its shift is odd, which 15 of 29 are.
    assert other[1] == pytest.approx(0.5 * 15 / 29, abs=4 * 0.5 / math.sqrt(len(grey)))
    assert names.shares.numpy().min() >= 0


def test_a_box_covers_the_expected_area():
    """λ is uniform, so the mean area is E[1 − λ] = 1/2, less what the border cuts off."""
    count, side = 20_000, 64
    images = np.zeros((count, side, side, 1), np.uint8)
    labels = np.zeros(count, np.int32)
    _, names = mix(images, labels, tf.constant(0, tf.int64), Mixing(None, 1.0, 4), SEED)
    # A side of r · n around a uniform centre keeps r (1 − r / 4) n of its length in the mean.
    r = np.sqrt(1 - shares(1.0))
    expected = 1 - ((r * (1 - r / 4)) ** 2).mean()
    assert names.shares.numpy().mean() == pytest.approx(expected, abs=0.02)


IMAGES = InMemoryDataset(
    RNG.integers(0, 256, (200, 6, 6, 1), np.uint8),
    RNG.integers(0, 3, 200),
    tuple("abc"),
    "random",
)


def elements(b, replicas, position=0, count=192, ghost=16):
    """The first `count` examples of a stream from `position` on, in the order of positions."""
    stream = ExampleStream(
        IMAGES, parse("medium"), SEED, order=lambda p: p % 200, mixing=Mixing(*BOTH, ghost)
    )
    whole = training(
        stream,
        position=position,
        micro_batch_size=b,
        replicas=replicas,
        local_replicas=range(replicas),
    )
    batches = list(whole.take(count // b).as_numpy_iterator())
    assert [first for *_, first in batches] == list(range(position, position + count, b))
    return [np.concatenate(x) for x in zip(*((x, *y) for x, y, _ in batches), strict=True)]


@pytest.fixture(scope="module")
def whole():
    return elements(64, 1)


@pytest.mark.parametrize(("b", "replicas"), [(32, 2), (48, 1), (16, 4)])
def test_no_layout_changes_a_mixture(b, replicas, whole):
    for ours, theirs in zip(elements(b, replicas), whole, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_mixture_depends_on_its_position_alone(whole):
    rest = elements(64, 1, position=64, count=128)
    for ours, theirs in zip(rest, whole, strict=True):
        np.testing.assert_array_equal(ours, theirs[64:])
    again = elements(64, 1, position=200 // 8 * 16)  # The same examples, two epochs later.
    np.testing.assert_array_equal(again[1], whole[1])
    assert (again[0] != whole[0]).any()


def test_flags_name_the_mixtures():
    assert mixing.from_config(parsed("--augment=medium")) is None
    both = parsed("--augment=medium,mixup,cutmix", "--mixup_alpha=0.1", "--ghost_batch_size=8")
    assert mixing.from_config(both) == Mixing(0.1, 1.0, 8)
    assert mixing.from_config(parsed("--augment=cutmix")) == Mixing(None, 1.0, 32)
    with pytest.raises(UserError, match="--ghost_batch_size=1 leaves no second image"):
        parsed("--augment=flip,mixup", "--ghost_batch_size=1")
