import pytest

from trainer.schedule.warmup import linear


def test_the_factor_rises_linearly_from_start_to_one():
    factor = linear(5, 0.1)
    assert [factor(e) for e in (0, 2.5, 5, 50)] == pytest.approx([0.1, 0.55, 1, 1])


def test_a_warm_up_of_no_length_is_one_throughout():
    assert linear(0, 0.1)(0) == 1
