"""Weights of the average: its definition, its horizon under growth, and which evaluation counts."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.configs import done, parsed
from trainer.errors import UserError
from trainer.schedule.averaging import described, evaluated_with, update_weights


def shares(decay, base, batches):
    """Returns the share of each update in the last average, by the weights of the updates."""
    found, position = np.zeros(0), 0
    for size in batches:
        position += size
        (weight,) = update_weights(decay, base, size, [position])
        found = np.append(found * (1 - weight), weight)
    return found


@given(
    decay=st.floats(0.001, 0.99999),
    base=st.integers(1, 64),
    batches=st.lists(st.integers(1, 400), min_size=1, max_size=20),
)
@settings(max_examples=60, deadline=None)
def test_the_average_is_the_weighted_mean_over_the_examples(decay, base, batches):
    """Sums d^((p − x)/B₀) over the examples x of each update, one by one."""
    ends = np.cumsum(batches)
    kernel = decay ** ((ends[-1] - np.arange(1, ends[-1] + 1)) / base)
    wanted = np.add.reduceat(kernel, ends - batches) / kernel.sum()
    np.testing.assert_allclose(shares(decay, base, batches), wanted, rtol=1e-7, atol=1e-12)


def test_the_first_update_has_the_whole_weight():
    for decay in (1e-300, 0.5, 0.999999, 1 - 1e-15):
        assert update_weights(decay, 128, 640, [640]) == [1.0]


def test_a_decay_near_one_keeps_its_digits():
    """Checks that all examples count alike while the horizon is far beyond the run."""
    weights = update_weights(1 - 1e-12, 128, 640, [640, 1280, 6400])
    np.testing.assert_allclose(weights, [1, 1 / 2, 1 / 10], rtol=1e-9)
    decay = 1 - Fraction(1, 2**40)  # A float has this value exactly.
    (weight,) = update_weights(float(decay), 128, 256, [512])
    assert weight == pytest.approx(float((1 - decay**2) / (1 - decay**4)), rel=1e-12)


def test_far_into_the_run_the_weight_is_that_of_the_batch():
    (weight,) = update_weights(0.99, 128, 640, [10**14])
    assert weight == pytest.approx(1 - 0.99**5, rel=1e-12)


HORIZON = 128 / (1 - 0.95)


def error(batches):
    """Returns the error of the average of a path that a position prescribes: cos(3 p / horizon)."""
    ends = np.cumsum(batches)
    whole = np.arange(1, ends[-1] + 1)
    kernel = np.exp((ends[-1] - whole) * math.log(0.95) / 128)
    wanted = np.average(np.cos(3 * whole / HORIZON), weights=kernel)
    return shares(0.95, 128, batches) @ np.cos(3 * ends / HORIZON) - wanted


@pytest.mark.parametrize(
    "batches",
    [[128] * 200, [128] * 100 + [640] * 20, [640] * 40, [640] * 20 + [128] * 100],
    ids=["small", "grow", "large", "shrink"],
)
def test_batches_change_the_average_of_a_path_by_their_share_of_the_horizon(batches):
    assert abs(error(batches)) < 3 * batches[-1] / HORIZON
    assert abs(error(batches)) > 0.01 * batches[-1] / HORIZON


def test_the_error_is_proportional_to_the_batch():
    small, large = error([64] * 400), error([128] * 200)
    assert large / small == pytest.approx(2, rel=0.05)


@pytest.mark.parametrize(
    ("flags", "counts"),
    [
        ([], "plain"),
        (["--evaluate_with=plain"], "plain"),
        (["--ema_decay=0.9"], "ema"),
        (["--ema_decay=0.9", "--evaluate_with=plain"], "plain"),
        (["--ema_decay=0.9", "--evaluate_with=ema"], "ema"),
    ],
    ids=str,
)
def test_the_average_counts_unless_the_run_says_plain(flags, counts):
    assert evaluated_with(parsed(*flags)) == counts


def test_an_average_that_the_run_does_not_have_cannot_count(capsys, tmp_path):
    with pytest.raises(UserError, match="--evaluate_with=ema needs an average"):
        evaluated_with(parsed("--evaluate_with=ema"))
    for command in ("plan", "train"):
        flags = ("--evaluate_with=ema", f"--model_dir={tmp_path}/run")
        status, out, error_text = done(capsys, command, *flags)
        assert (status, out) == (2, "")
        assert "train it with --ema_decay" in error_text
        assert len(error_text.splitlines()) <= 2
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("decay", ["0", "1", "-0.5", "nan"])
def test_a_decay_is_between_0_and_1(decay):
    with pytest.raises(UserError, match="must be above 0 and below 1"):
        parsed(f"--ema_decay={decay}")


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (
            ["--ema_decay=0.999"],
            "--ema_decay=0.999: the average has a horizon of 128,000 examples (2.13 epochs); "
            "results are those of the average",
        ),
        (
            ["--ema_decay=0.5", "--evaluate_with=plain", "--base_batch_size=100"],
            "--ema_decay=0.5: the average has a horizon of 200 examples (0.00333 epochs), far "
            "less than a batch of 6,400, so it almost equals the last parameters; "
            "results are those of the plain parameters",
        ),
        (
            ["--ema_decay=0.9999999", "--epochs=16"],
            "--ema_decay=0.9999999: the average has a horizon of 1,280,000,001 examples (2.13e+04 "
            "epochs), far more than the run has, so all examples have nearly equal weight; "
            "results are those of the average",
        ),
        (  # The first examples have e^(−1/1.33) = 0.47 of the weight of the last ones.
            ["--ema_decay=0.9999", "--epochs=16"],
            "--ema_decay=0.9999: the average has a horizon of 1,280,000 examples (21.3 epochs); "
            "results are those of the average",
        ),
        (  # The last batch has 63% of the weight.
            ["--ema_decay=0.98", "--base_batch_size=128"],
            "--ema_decay=0.98: the average has a horizon of 6,400 examples (0.107 epochs); "
            "results are those of the average",
        ),
    ],
    ids=str,
)
def test_the_plan_names_the_horizon(capsys, flags, line):
    assert described(parsed(*flags), 60_000, 6_400) == [line]
    assert described(parsed(), 60_000, 6_400) == []


def test_plan_prints_the_horizon(capsys):
    flags = ("--ema_decay=0.999", "--train_examples=60000")
    status, out, _ = done(capsys, "plan", *flags)
    assert status == 0
    assert "\n--ema_decay=0.999: the average has a horizon of 128,000 examples (2.13 ep" in out
