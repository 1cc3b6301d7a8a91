import math

import pytest

from tests.support.configs import parsed
from trainer.errors import UserError
from trainer.schedule.gradient_noise import GradientNoise
from trainer.schedule.noise_controller import NoiseController, micro_batch
from trainer.schedule.realize import BatchLimits
from trainer.schedule.trajectory import from_config


def noise(scale, weight=1.0):
    """Returns a measurement of B_simple = `scale` examples."""
    return GradientNoise(1000, trace=scale * weight, square=weight, weight=weight)


def follower(threshold=2.0, largest=1000):
    return NoiseController(threshold, BatchLimits(128, largest, 0.0), 15_000, 128)


def test_the_batch_follows_the_noise_scale_from_below_one_step_at_a_time():
    control = follower()
    sizes = []
    for scale in (200, 255, 256, 300, 511, 10_000, 10_000, 10_000, 10, 0.1):
        said = control.measured(noise(scale))
        sizes.append(control.batch_size)
        assert (said is not None) == (len(sizes) > 1 and sizes[-1] != sizes[-2])
    # The batch reaches the largest size exactly, and never shrinks.
    assert sizes == [128, 128, 256, 256, 256, 512, 1000, 1000, 1000, 1000]


def test_a_decision_names_its_numbers():
    assert follower().measured(noise(300.0)) == (
        "the gradient noise scale is 300 / 1 = 300 examples, at least 2 times the batch of 128"
    )


def test_pure_noise_makes_the_batch_grow_but_too_few_measurements_do_not():
    assert follower().measured(GradientNoise(1000)) is None
    assert follower().measured(noise(math.inf, weight=0.5)) is None
    assert follower().measured(GradientNoise(1000, trace=3.0, square=-0.1, weight=0.9)) is not None


def test_measurements_over_one_horizon_are_enough_whatever_the_rounding():
    for size in (16, 128, 512):
        for updates in range(2, 100):
            measured = GradientNoise(size * updates)
            measured.add(size // 2, size, (updates - 1) * [2.0], (updates - 1) * [1.0])
            assert follower().measured(measured) is None
            measured.add(size // 2, size, [2.0], [1.0])
            assert follower().measured(measured) is not None


def test_a_small_threshold_grows_by_multiples_of_the_smallest_batch():
    control = follower(threshold=1.25, largest=1024)
    sizes = []
    for scale in (160, 255, 256, 384, 10_000, 10_000, 10_000, 10_000):
        control.measured(noise(scale))
        sizes.append(control.batch_size)
    assert sizes == [128, 128, 256, 384, 512, 640, 768, 896]


def test_the_rate_follows_the_batch_so_that_growth_does_not_anneal():
    run = from_config(parsed("--anneal=measured", "--max_batch_size=1024"), 60_000, 1)
    run.control.load_state_dict({"batch_size": 512})
    assert run.at(0).batch_size == 512
    assert run.at(0).learning_rate == pytest.approx(0.4)
    assert run.control.every == 15_000
    run = from_config(parsed("--anneal=measured", "--scaling=none"), 60_000, 1)
    run.control.load_state_dict({"batch_size": 512})
    assert (run.at(0).batch_size, run.at(0).learning_rate) == (512, 0.1)


@pytest.mark.parametrize(
    ("batch", "replicas", "ghost", "most", "expected"),
    [
        (128, 1, 32, None, 64),
        (128, 2, 32, None, 64),
        (128, 4, 32, 32, 32),
        (640, 1, 32, None, 128),  # The candidates are 32, 64, 128, 160 and 320.
        (1024, 1, 256, None, 256),
    ],
)
def test_the_micro_batch_does_not_depend_on_the_replicas(batch, replicas, ghost, most, expected):
    assert micro_batch(batch, replicas, ghost, most) == expected


@pytest.mark.parametrize(
    ("batch", "replicas", "most", "message"),
    [
        (32, 1, None, "is one ghost batch: raise the batch size, or lower --ghost_batch_size"),
        (128, 1, 128, "=128 does not fit twice or more .*: use one of 32, 64"),
        (128, 4, None, r"use one of 1, 2 replicas, or --micro_batch_size=32\.$"),
        (1280, 8, None, r"use one of 1, 2, 5, 10 replicas, or --micro_batch_size=160\.$"),
        (128, 3, None, r"use one of 1, 2 replicas\.$"),
    ],
)
def test_batches_without_a_smaller_micro_batch_are_rejected(batch, replicas, most, message):
    with pytest.raises(UserError, match=message):
        micro_batch(batch, replicas, 32, most)
