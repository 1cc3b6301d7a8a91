"""Frozen layers keep parameters and statistics, and have no slots."""

import numpy as np
import pytest

from tests.support.steps import run, step_on, strategy_of, tiny, weights
from trainer.errors import UserError
from trainer.nn.freezing import freeze, summary, warnings
from trainer.nn.layer_paths import weight_paths
from trainer.nn.transfer import transfer

# Statistics of a layer that has trained before.
MEAN, VARIANCE = 0.3, 2.0


def backbone_frozen():
    """The tiny model with statistics of its own, of which only the last layer trains."""
    model = tiny(ghost=16)
    for path, variable in weight_paths(model).items():
        if path.endswith(("moving_mean", "moving_variance")):
            variable.assign(np.full(variable.shape, MEAN if "mean" in path else VARIANCE))
    frozen = freeze(model, "(?!dense)")
    assert summary(model, len(frozen)) == (
        "--freeze: 2 of 3 layers are frozen; 15 of 67 values train"
    )
    return model


def test_only_what_is_left_trains_and_the_layout_changes_nothing(cpus):
    found = []
    for replicas, b in ((1, 64), (2, 32), (4, 16)):
        step = step_on(strategy_of(cpus, replicas), backbone_frozen)
        before = weights(step)
        assert len(step.slots) == 2
        assert step.starts == {}
        run(step, b)
        after = weights(step)
        paths = list(weight_paths(step.model))
        changed = [p for p, a, b in zip(paths, before, after, strict=True) if np.any(a != b)]
        assert changed == ["dense/kernel", "dense/bias"]
        found.append(after)
    for other in found[1:]:
        for ours, theirs in zip(other, found[0], strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_a_frozen_batch_norm_uses_its_moving_statistics():
    model = backbone_frozen()
    images = np.random.default_rng(0).integers(0, 256, (16, 6, 6, 1), np.uint8)
    np.testing.assert_array_equal(model(images, training=True), model(images, training=False))


def test_frozen_layers_with_random_weights_are_named():
    model = tiny(ghost=16)
    (line,) = warnings("(?!dense)", model, None)
    assert "without --init_from" in line
    source = {path: np.asarray(value) for path, value in weight_paths(model).items()}
    assert warnings("(?!dense)", model, transfer(model, source)) == []
    del source["conv2d/kernel"]
    (line,) = warnings("(?!dense)", model, transfer(model, source))
    assert line == "frozen layers with random weights, which were not loaded: conv2d"


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (
            "logits",
            "--freeze=logits matches no layer.\nThe layers are: conv2d, batch_normalization",
        ),
        ("ense", "--freeze=ense matches no layer."),
        ("", "matches all 3 layers, and nothing is left to train.\nLeave the last one out, "),
    ],
)
def test_patterns_that_freeze_nothing_or_all_are_refused(pattern, message):
    with pytest.raises(UserError) as error:
        freeze(tiny(), pattern)
    assert message in str(error.value)
