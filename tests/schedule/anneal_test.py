import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.configs import parsed
from trainer.errors import UserError
from trainer.schedule import anneal
from trainer.schedule.trajectory import from_config


def test_a_step_takes_effect_at_its_point():
    at = anneal.step([4.8, 9.6, 12.8], 5)
    assert [at(e) for e in (0, 4.7999, 4.8, 9.6, 12.8, 16)] == [
        1,
        1,
        1 / 5,
        1 / 25,
        1 / 125,
        1 / 125,
    ]


@given(st.integers(1, 10**7), st.integers(1, 99), st.integers(1, 300))
def test_a_step_takes_effect_at_the_first_position_that_reaches_a_percentage(
    examples, percent, total
):
    (point,) = anneal.points([f"{percent}%"], total)
    at = anneal.step([point], 5)
    first = -(-percent * total * examples // 100)  # This is exact in integers.
    assert at(first / examples) == 1 / 5
    assert at((first - 1) / examples) == 1


def test_curves_equal_their_closed_forms():
    assert anneal.constant()(7) == 1
    assert anneal.cosine(90)(30) == pytest.approx((1 + math.cos(math.pi / 3)) / 2)
    assert anneal.polynomial(90, 2)(30) == pytest.approx(4 / 9)
    assert anneal.exponential(2.4, 1 / 0.97)(24) == pytest.approx(0.97**10)


@given(st.floats(0, 90))
def test_annealing_curves_stay_in_range_and_never_rise(epochs):
    for curve in (
        anneal.constant(),
        anneal.step([30, 60], 10),
        anneal.cosine(90),
        anneal.polynomial(90, 2),
        anneal.exponential(10, 2),
        anneal.exponential(1e-3, 5),
        anneal.polynomial(90, 1e6),
        anneal.step([30, 60], 1e200),
    ):
        assert 0 < curve(epochs) <= 1
        assert curve(epochs) <= curve(epochs * 0.9)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["60%", "30%"], "out of order at 30%"),
        (["4", "25%"], "out of order at 25%"),
        (["17"], "17, which is not inside the run of 16 epochs"),
        (["100%"], "not inside"),
        (["0"], "not inside"),
        (["soon"], "'soon': write epochs or percents"),
        (["nan"], "nan, which is not inside"),
    ],
)
def test_invalid_points_are_rejected(texts, message):
    with pytest.raises(UserError, match=message):
        anneal.points(texts, 16)


def test_points_may_be_epochs_or_percents():
    assert anneal.points(["30%", "6", "60%"], 16) == [4.8, 6, 9.6]


def test_cycles_start_and_end_at_the_trough_and_peak_between():
    at = anneal.cyclical(4.0, 0.25, lambda cycle, epochs: 0.5 ** (cycle - 1))
    assert [at(e) for e in (0, 2, 4, 6, 8, 10)] == [0.25, 1, 0.25, 0.625, 0.25, 0.4375]
    assert at(1) == at(3) == 0.625


def test_ramps_rise_in_equal_factors_or_equal_steps():
    geometric, linear = (anneal.ramp(2.0, 1e-4, scale) for scale in ("geometric", "linear"))
    assert [geometric(e) for e in (0, 1, 2)] == pytest.approx([1e-4, 1e-2, 1])
    assert [linear(e) for e in (0, 1, 2)] == pytest.approx([1e-4, 0.50005, 1])


def test_the_length_of_an_exponential_may_exceed_the_run():
    flags = ("--anneal=exponential", "--anneal_factor=4", "--epochs=16")
    run = from_config(parsed(*flags, "--anneal_epochs=32"), 60_000, 1)
    assert run.at(16 * 60_000).learning_rate == pytest.approx(0.1 / 2)
    for text in ("0", "-1", "nan", "inf", "0%"):
        with pytest.raises(UserError, match=f"--anneal_epochs has {text}, which is not a length"):
            from_config(parsed(*flags, f"--anneal_epochs={text}"), 60_000, 1)
    with pytest.raises(UserError, match="give one length in epochs"):
        from_config(parsed(*flags, "--anneal_epochs=3,5"), 60_000, 1)
