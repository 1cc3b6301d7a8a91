import io
import math

import numpy as np
import pytest
from matplotlib.image import imread

from trainer.reports.range_test import csv, draw, smoothed, suggest


def points(accuracy, n=101, examples=10**6):
    """Returns n points with rates from 1e-4 to 10, each of `examples` examples.

    `accuracy` takes log10 of the rate.
    """
    rates = [10 ** (-4 + 5 * i / (n - 1)) for i in range(n)]
    found = [
        {"update": i + 1, "position": (i + 1) * examples, "learning_rate": e, "loss": 2.3}
        for i, e in enumerate(rates)
    ]
    return [point | {"top1": accuracy(math.log10(point["learning_rate"]))} for point in found]


def hill(x):
    """Returns an accuracy: 0.1 up to 1e-3, rising to 0.9 at 0.1, falling to 0.1 at 10."""
    if x < -3:
        return 0.1
    return 0.1 + 0.8 * ((x + 3) / 2 if x < -1 else 1 - (x + 1) / 2)


def test_the_interval_is_where_accuracy_rises():
    found = suggest(points(hill))
    # The first tenth of the gain takes a tenth of the way from 1e-3 to 1e-1.
    assert found.lowest == pytest.approx(10**-2.8, rel=0.15)
    assert found.highest == pytest.approx(0.1)
    assert "falls to 0.1" in found.why


def test_the_interval_ends_where_accuracy_is_as_high_as_chance_lets_us_tell():
    """The true accuracy is 0.8 from 0.01 to 1, and each point is measured on 32 examples."""
    random = np.random.default_rng(0)

    def level(x):
        true = 0.1 if x < -3 else min(0.8, 0.1 + 0.7 * (x + 3)) if x < 0 else 0.8 - 0.5 * x
        return random.binomial(32, true) / 32

    found = [suggest(points(level, examples=32)) for _ in range(200)]
    # The smoothed accuracy of a point is 2 and a half standard errors above the mean by chance.
    highest = np.log10([each.highest for each in found])
    assert np.quantile(highest, 0.95) < -1.5
    assert np.quantile(highest, 0.05) > -2.5
    assert np.std(highest) < 0.25
    assert all("within 3 standard errors of its highest" in each.why for each in found)


@pytest.mark.parametrize(("low", "high"), [(0.5, 0.75), (0.5, 0.8)])
def test_a_first_batch_that_is_right_by_chance_decides_nothing(low, high):
    random = np.random.default_rng(1)

    def rising(x):
        return random.binomial(10, low + (high - low) * min(1, max(0, (x + 3) / 1.5))) / 10

    found = [suggest(points(rising, examples=10)) for _ in range(300)]
    suggested = [each for each in found if each.is_found]
    assert len(suggested) > 0.98 * len(found)
    assert np.mean([each.highest < 10**-3.5 for each in suggested]) < 0.02
    for each in suggested:
        assert each.lowest <= each.highest
        assert each.why.startswith(f"from {each.lowest:.3g} on")


def test_a_last_point_that_is_right_by_chance_decides_nothing():
    """The true accuracy is 0.8 from 0.01 on; the last point, which has no neighbours, is at 1."""
    found = points(lambda x: 0.1 if x < -3 else min(0.8, 0.1 + 0.7 * (x + 3)), examples=32)
    found[-1]["top1"] = 0.95
    assert suggest(found).highest < 0.02


def test_a_gain_that_may_be_chance_suggests_no_rates():
    found = suggest(points(lambda x: 0.8 if abs(x + 2) < 0.3 else 0.7, examples=10))
    assert not found.is_found
    assert "0.700 at first and at most 0.800, which may be chance: raise --epochs" in found.why


def test_an_early_spike_is_not_the_start():
    def blip(x):
        return 0.3 if abs(x + 3.5) < 0.01 else hill(x)

    assert suggest(points(blip)).lowest == pytest.approx(10**-2.8, rel=0.15)


def test_a_ramp_that_ends_at_the_peak_suggests_a_higher_range_to():
    found = suggest([p for p in points(hill) if p["learning_rate"] < 0.05])
    assert "raise --range_to" in found.why


def test_a_ramp_that_does_not_end_at_range_to_is_not_told_to_raise_it():
    rising = [p for p in points(hill) if p["learning_rate"] < 0.05]
    assert "does not fall before the loss is not finite" in suggest(rising, "diverged").why
    for state in ("running", "killed", "not finished"):
        assert "the test is not finished" in suggest(rising, state).why


@pytest.mark.parametrize(
    ("accuracy", "state", "remedy"),
    [
        (lambda _: 0.1, "finished", "raise --range_to"),
        (lambda _: 0.1, "diverged", "lower --range_from"),
        (lambda x: 0.1 + 1e-6 * x, "finished", "raise --range_to"),
        (lambda x: 0.1 - 0.01 * x, "finished", "lower --range_from"),
    ],
)
def test_a_top1_that_does_not_rise_suggests_no_rates(accuracy, state, remedy):
    found = suggest(points(accuracy), state)
    assert not found.is_found
    assert "does not rise above" in found.why
    assert remedy in found.why


def test_smoothing_keeps_the_ends_and_the_mean_of_a_line():
    assert smoothed([1.0]) == [1.0]
    line = [float(i) for i in range(9)]
    assert smoothed(line) == pytest.approx(line)


def test_csv_has_a_line_per_point():
    lines = csv(points(hill)).splitlines()
    assert lines[0] == "update,learning_rate,loss,top1"
    assert lines[1] == "1,0.0001,2.3,0.1"
    assert len(lines) == 102


@pytest.mark.parametrize("scale", ["geometric", "linear"])
def test_the_picture_is_a_png_of_840_by_720(scale):
    found = points(hill)
    assert imread(io.BytesIO(draw(found, suggest(found), scale))).shape == (720, 840, 4)
