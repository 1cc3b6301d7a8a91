import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.schedule.noise_scale import Scaling, Setting, noise_scale
from trainer.schedule.realize import BatchLimits, Target, realize

START = Setting(128, 0.1, 0.9)


def realized(factor, *, floor=0.0, largest=5120, momentum=0.9, least=0):
    return realize(Target(factor, momentum, least), START, BatchLimits(128, largest, floor))


def test_the_batch_grows_first_and_the_rate_falls_last():
    assert realized(1) == START
    assert realized(1 / 5) == Setting(640, 0.1, 0.9)
    assert realized(1 / 25) == Setting(3200, 0.1, 0.9)
    top = realized(1 / 125)
    assert top.batch_size == 5120
    assert top.learning_rate == pytest.approx(0.032)


def test_a_floating_point_product_is_snapped():
    # In floats, 0.2 · 0.2 is not 0.04, so 128 / (0.2 · 0.2) is less than 3,200.
    assert realized(0.2 * 0.2) == Setting(3200, 0.1, 0.9)


def test_with_a_floor_of_one_the_learning_rate_alone_anneals():
    assert realized(1 / 5, floor=1) == Setting(128, pytest.approx(0.02), 0.9)


def test_above_the_floor_the_batch_anneals_and_below_it_the_rate():
    assert realized(1 / 25, floor=1 / 5) == Setting(640, pytest.approx(0.02), 0.9)


def test_a_larger_smallest_batch_raises_the_rate_at_the_same_noise_scale():
    assert realized(1, least=1024) == Setting(1024, pytest.approx(0.8), 0.9)


def test_a_largest_batch_off_the_grid_is_reached():
    assert realized(1 / 20, largest=1000).batch_size == 1000
    assert realized(1 / 7.5, largest=1000).batch_size == 896


@given(
    factor=st.floats(1e-6, 1),
    floor=st.sampled_from([0, 0.04, 0.2, 1]),
    momentum=st.floats(0, 0.99),
    smallest=st.integers(1, 1000),
    multiple=st.integers(1, 50),
    extra=st.integers(0, 999),
)
def test_the_noise_scale_is_met_exactly(factor, floor, momentum, smallest, multiple, extra):
    start = Setting(smallest, 0.1, 0.9)
    limits = BatchLimits(smallest, smallest * multiple + extra, floor)
    setting = realize(Target(factor, momentum, smallest), start, limits)
    wanted = factor * noise_scale(start, 1)
    assert noise_scale(setting, 1) == pytest.approx(wanted, rel=1e-9)
    assert smallest <= setting.batch_size <= limits.largest
    assert setting.batch_size % smallest == 0 or setting.batch_size == limits.largest


@given(st.floats(1e-6, 1), st.floats(1e-6, 1))
def test_a_lower_noise_scale_never_shrinks_the_batch(a, b):
    low, high = sorted((a, b))
    assert realized(low).batch_size >= realized(high).batch_size


def test_square_root_scaling_grows_the_batch_by_the_square_of_the_factor():
    limits = BatchLimits(128, 5120, 0.0, Scaling(0.5))
    # 25 times the batch replaces a fifth of the rate.
    assert realize(Target(1 / 5, 0.9, 0), START, limits) == Setting(3200, 0.1, 0.9)
    top = realize(Target(1 / 25, 0.9, 0), START, limits)
    assert top == Setting(5120, pytest.approx(0.1 / 25 * 40**0.5), 0.9)
    assert realize(Target(1, 0.9, 512), START, limits) == Setting(512, pytest.approx(0.2), 0.9)


def test_without_scaling_the_rate_does_not_follow_the_batch():
    limits = BatchLimits(128, 5120, 1.0, Scaling(0.0, momentum_counts=False))
    assert realize(Target(1, 0.9, 512), START, limits) == Setting(512, 0.1, 0.9)
    assert realize(Target(1 / 5, 0.9, 512), START, limits) == Setting(512, pytest.approx(0.02), 0.9)
