import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trainer.errors import UserError
from trainer.schedule.noise_scale import Scaling, Setting, noise_scale, solve

REFERENCE = Setting(128, 0.1, 0.9)


def start(ghost=32, reference=REFERENCE, **given_values):
    values = {"learning_rate": None, "batch_size": None, "momentum": None} | given_values
    return solve(reference, ghost_batch_size=ghost, **values)


def test_noise_scale_is_equation_5_of_smith():
    assert noise_scale(REFERENCE, 50_000) == pytest.approx(0.1 * 50_000 / (128 * (1 - 0.9)))


def test_without_given_values_the_start_is_the_reference():
    assert start() == REFERENCE


def test_a_given_batch_scales_the_rate_linearly():
    # A rate of 0.1 at 256 becomes 3.2 at 8,192 (Goyal et al. 2017).
    assert start(reference=Setting(256, 0.1, 0.9), batch_size=8192).learning_rate == pytest.approx(
        3.2
    )


def test_the_starts_of_smith_are_reproduced():
    assert start(learning_rate=0.5) == Setting(640, 0.5, 0.9)
    assert start(learning_rate=0.5, momentum=0.98) == Setting(3200, 0.5, 0.98)


def test_a_given_momentum_keeps_the_rate_and_solves_the_batch():
    assert start(momentum=0.98) == Setting(640, 0.1, 0.98)


def test_values_that_agree_are_kept():
    assert start(learning_rate=0.5, batch_size=3200, momentum=0.98) == Setting(3200, 0.5, 0.98)
    assert start(learning_rate=0.5, batch_size=640) == Setting(640, 0.5, 0.9)


@pytest.mark.parametrize("rate", [0.5 * (1 + 2e-6), 0.1])
def test_a_contradiction_is_rejected_with_a_value_that_agrees(rate):
    with pytest.raises(UserError, match=r"momentum 0.98.*\n.*--initial_learning_rate=0.5,"):
        start(learning_rate=rate, batch_size=3200, momentum=0.98)


@given(st.floats(1e-4, 10), st.integers(1, 5000), st.integers(1, 64), st.sampled_from([1, 0.5]))
@example(0.33, 640, 32, 1)  # The exact batch size is 422.4.
@example(0.1, 100, 1, 1)  # Six digits suffice for 0.078125, but not for 0.10416666.
def test_the_remedies_for_a_contradiction_work(rate, size, ghost, exponent):
    given_values = {
        "reference": Setting(96, 0.1, 0.9),
        "ghost": ghost,
        "scaling": Scaling(exponent),
    }
    try:
        start(learning_rate=rate, batch_size=size, **given_values)
    except UserError as error:
        found = dict(re.findall(r"--initial_(\w+)=([\d.e+-]*\d)", str(error)))
        assert start(learning_rate=float(found["learning_rate"]), batch_size=size, **given_values)
        if other := found.get("batch_size"):
            assert int(other) % ghost == 0
            assert start(learning_rate=rate, batch_size=int(other), **given_values)


@given(
    rate=st.none() | st.floats(1e-4, 10),
    size=st.none() | st.integers(1, 100_000),
    momentum=st.none() | st.floats(0, 0.999),
    ghost=st.integers(1, 512),
)
def test_the_solved_start_has_the_noise_scale_of_the_reference(rate, size, momentum, ghost):
    if rate is not None and size is not None:
        return
    solved = start(ghost, learning_rate=rate, batch_size=size, momentum=momentum)
    assert noise_scale(solved, 1000) == pytest.approx(noise_scale(REFERENCE, 1000), rel=1e-8)
    assert solved.momentum == (0.9 if momentum is None else momentum)
    if size is not None:
        assert solved.batch_size == size
    elif rate is not None or momentum is not None:
        assert solved.batch_size % ghost == 0


def test_square_root_scaling():
    root = Scaling(0.5)
    assert start(batch_size=2048, scaling=root) == Setting(2048, pytest.approx(0.4), 0.9)
    assert start(learning_rate=0.2, scaling=root) == Setting(512, 0.2, 0.9)
    with pytest.raises(UserError, match=r"0.5 times .*\n.*_rate=0.4, or --initial_batch_size=512"):
        start(learning_rate=0.2, batch_size=2048, scaling=root)


def test_without_scaling_the_rate_does_not_follow_the_batch():
    alone = Scaling(0.0, momentum_counts=False)
    assert start(batch_size=2048, scaling=alone) == Setting(2048, 0.1, 0.9)
    assert start(learning_rate=0.7, scaling=alone) == Setting(128, 0.7, 0.9)


def test_momentum_that_averages_gradients_does_not_count():
    adam = Scaling(momentum_counts=False)
    assert start(momentum=0.98, scaling=adam) == Setting(128, 0.1, 0.98)
    assert noise_scale(REFERENCE, 1000, adam) == pytest.approx(0.1 * 1000 / 128)
