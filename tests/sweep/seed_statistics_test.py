import math

import pytest

from trainer.sweep.seed_statistics import spread


def test_spread_is_mean_and_sample_deviation():
    found = spread([1.0, 2.0, 4.0])
    assert (found.mean, found.n) == (7 / 3, 3)
    assert found.deviation == pytest.approx(math.sqrt((16 + 1 + 25) / 9 / 2))


def test_one_number_has_no_deviation():
    assert spread([2.0]).deviation is None


def test_no_numbers_have_no_spread():
    assert spread([]) is None
