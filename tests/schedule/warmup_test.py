import pytest

from trainer.schedule.warmup import linear


def test_linear_from_start_to_one():
    factor = linear(5, 0.1)
    assert [factor(e) for e in (0, 2.5, 5, 50)] == pytest.approx([0.1, 0.55, 1, 1])


def test_no_warm_up():
    assert linear(0, 0.1)(0) == 1
