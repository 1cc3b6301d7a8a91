import pytest

from tests.support.configs import parsed
from trainer.training import evaluation_gap
from trainer.training.evaluation import Evaluation


def warning(loss, training_loss, classes, *flags, batch_norm=False):
    evaluation = Evaluation(loss, 0.25, 1.0)
    config = parsed(*flags)
    return evaluation_gap.warning(config, evaluation, training_loss, classes, batch_norm=batch_norm)


@pytest.mark.parametrize(
    ("loss", "training_loss", "batch_norm", "words"),
    [
        (150.0, 0.06, True, "is 2500 times the training loss, 0.06; likely, the moving statistics"),
        (150.0, 0.0, False, "is inf times the training loss, 0; likely, the model fits"),
        (150.0, 20.0, True, None),  # Both are bad.
        (1.5, 0.001, True, None),  # It has learned the training set by heart.
        (2.4, float("inf"), True, None),  # Nothing was trained yet.
    ],
)
def test_an_evaluation_far_above_training_is_explained(loss, training_loss, batch_norm, words):
    found = warning(loss, training_loss, 4, batch_norm=batch_norm)
    assert (words is None) == (found is None)
    assert words is None or words in found
    for flag in ("--class_weights=balanced", "--sampling=balanced"):
        balanced = warning(loss, training_loss, 4, flag, batch_norm=batch_norm)
        assert (balanced is None) == (found is None)
        assert balanced is None or "the few training images of small classes" in balanced


def test_a_mean_over_classes_is_compared_with_its_own_loss_at_chance():
    """The loss at chance of 1,000 classes is 0.008 as a mean, and 7.9 as a sum."""
    mean = ["--loss=sigmoid", "--sigmoid_reduction=mean"]
    assert warning(0.1, 0.001, 1000, *mean)
    assert warning(0.01, 0.001, 1000, *mean) is None
    assert warning(10.0, 0.001, 1000, "--loss=sigmoid") is None


def test_a_range_test_which_ends_in_failure_has_no_warning():
    assert warning(150.0, 0.06, 4)
    assert warning(150.0, 0.06, 4, "--anneal=range_test") is None
