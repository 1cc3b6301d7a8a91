"""Whole runs with AdamW, decoupled decay and clipping: what is logged, and kills."""

import pytest

from tests.support.configs import done
from tests.support.runs import OFTEN, SHORT, digest, kill_after, points, result, started, train

FLAGS = [
    *SHORT,
    *("--epochs=0.8", "--optimizer=adamw", "--base_learning_rate=0.003", "--weight_decay=0.1"),
    "--clip_norm=0.2",
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adamw") / "whole"
    train(folder, *FLAGS)
    return folder


def test_clipping_and_both_noise_scales_are_logged(whole):
    found = points(whole)
    clipped = [point["gradient_clipped"] for point in found]
    assert all(0 <= each <= 1 for each in clipped)
    assert max(clipped) > 0
    assert min(clipped) < 1
    for name in ("gradient_noise_scale", "gradient_noise_scale_adam"):
        measured = {point["batch_size"] for point in found if name in point}
        assert measured == {160, 800}
    assert max(point["gradient_norm"] for point in found) > 0.2  # It is the norm before.


def test_killed_it_ends_the_same(whole, tmp_path):
    updates = result(whole)["updates"]
    kill_after(started(tmp_path, *FLAGS, OFTEN), tmp_path, updates - 8)
    train(tmp_path, *FLAGS, OFTEN)
    assert digest(tmp_path) == digest(whole)
    assert points(tmp_path) == points(whole)


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--clip_norm=0", "--clip_norm=0.0: must be above 0"),
        ("--optimizer=adamax", "should be one of"),
        ("--drop_path=0.1", "--drop_path=0.1 is for resnet_50 and vit"),
    ],
)
def test_wrong_values_are_refused(capsys, tmp_path, flag, message):
    status, _, error = done(capsys, "train", flag, f"--model_dir={tmp_path}/run")
    assert status == 2
    assert message in error


def test_another_limit_is_another_run(whole):
    done_ = train(whole, *FLAGS, "--clip_norm=1", status=2)
    assert "--clip_norm: 0.2 → 1.0" in done_.stderr
