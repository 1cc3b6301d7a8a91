"""Numbers of classes against slow references, written from the definitions."""

import math

import numpy as np
import pytest

from trainer.training import class_metrics
from trainer.training.evaluation import Predictions


def predictions(labels, predicted, confidences=None):
    """Predictions whose losses do not matter."""
    n = len(labels)
    confidences = np.full(n, 0.5) if confidences is None else np.asarray(confidences, np.float64)
    return Predictions(
        np.arange(n), np.asarray(labels), np.asarray(predicted), confidences, np.ones(n), np.ones(n)
    )


def random_predictions(examples, classes, seed):
    """Predictions of a random classifier; the classes differ in size, and some are absent."""
    rng = np.random.default_rng(seed)
    used = rng.permutation(classes)[: max(1, classes - 2)]
    labels = used[rng.integers(0, len(used), examples) ** 2 % len(used)]
    wrong = rng.random(examples) < 0.4
    predicted = np.where(wrong, rng.integers(0, classes, examples), labels)
    return predictions(labels, predicted, rng.random(examples).astype(np.float32))


def slow_rows(labels, predicted, classes):
    rows = []
    for c in range(classes):
        both = sum(1 for a, b in zip(labels, predicted, strict=True) if a == c and b == c)
        support = sum(1 for a in labels if a == c)
        taken = sum(1 for b in predicted if b == c)
        precision = both / taken if support and taken else None
        recall = both / support if support else None
        f1 = None
        if support:
            f1 = 2 * precision * recall / (precision + recall) if both else 0.0
        others = [b for a, b in zip(labels, predicted, strict=True) if a == c and b != c]
        mistakes = max((others.count(b) for b in set(others)), default=0)
        mistaken_for = min((b for b in set(others) if others.count(b) == mistakes), default=None)
        rows.append((support, taken, both, precision, recall, f1, mistaken_for, mistakes))
    return rows


@pytest.mark.parametrize("examples", [1, 2, 7, 250, 1777])
@pytest.mark.parametrize("classes", [1, 2, 3, 11, 40])
def test_each_class_equals_a_slow_reference(examples, classes):
    found = random_predictions(examples, classes, seed=examples + classes)
    cells = class_metrics.confusion(found, classes)
    labels, predicted = found.labels.tolist(), found.predicted.tolist()
    expected = {}
    for pair in zip(labels, predicted, strict=True):
        expected[pair] = expected.get(pair, 0) + 1
    assert cells.tolist() == [[*pair, expected[pair]] for pair in sorted(expected)]
    rows = class_metrics.by_class(cells, classes)
    slow = slow_rows(labels, predicted, classes)
    assert [tuple(row.values()) for row in rows] == [pytest.approx(row) for row in slow]
    recalls = [row[4] for row in slow if row[4] is not None]
    assert class_metrics.balanced_accuracy(rows) == pytest.approx(sum(recalls) / len(recalls))


def test_a_class_without_examples_has_no_numbers_and_one_never_predicted_has_no_precision():
    found = predictions([0, 0, 2, 2], [0, 1, 0, 0])
    rows = class_metrics.by_class(class_metrics.confusion(found, 4), 4)
    assert [(row["precision"], row["recall"], row["f1"]) for row in rows] == [
        (1 / 3, 0.5, 2 / 5),
        (None, None, None),  # It is predicted, but the split has no examples of it.
        (None, 0.0, 0.0),
        (None, None, None),
    ]
    assert class_metrics.balanced_accuracy(rows) == 0.25


def slow_calibration(confidences, right, bins):
    """Returns the ECE, and examples, mean confidence and accuracy of each bin."""
    ece, curve = 0.0, []
    for i in range(bins):
        inside = [
            (c, r)
            for c, r in zip(confidences, right, strict=True)
            if (i / bins < c or i == 0) and (c <= (i + 1) / bins or i == bins - 1)
        ]
        if not inside:
            curve.append((0, None, None))
            continue
        confidence = sum(c for c, _ in inside) / len(inside)
        accuracy = sum(r for _, r in inside) / len(inside)
        ece += len(inside) / len(right) * abs(accuracy - confidence)
        curve.append((len(inside), confidence, accuracy))
    return ece, curve


@pytest.mark.parametrize("examples", [1, 3, 250, 1777])
@pytest.mark.parametrize("bins", [1, 2, 15])
def test_calibration_equals_a_slow_reference(examples, bins):
    found = random_predictions(examples, 5, seed=examples)
    right = (found.labels == found.predicted).tolist()
    ece, curve = slow_calibration(found.confidences.tolist(), right, bins)
    result = class_metrics.calibration(found, bins)
    assert result["bins"] == bins
    assert result["ece"] == pytest.approx(ece)
    assert [
        (each["examples"], each["confidence"], each["accuracy"]) for each in result["curve"]
    ] == [pytest.approx(each) for each in curve]
    assert [each["low"] for each in result["curve"]] == [i / bins for i in range(bins)]


def test_confidences_on_the_limit_of_a_bin_belong_to_the_lower_bin():
    found = predictions([0] * 4, [0] * 4, [0.5, math.nextafter(0.5, 1), 1.0, 0.0])
    curve = class_metrics.calibration(found, 2)["curve"]
    assert [each["examples"] for each in curve] == [2, 2]


def test_a_model_that_is_always_right_and_sure_is_calibrated():
    result = class_metrics.calibration(predictions([1, 0], [1, 0], [1.0, 1.0]))
    assert (result["bins"], result["ece"]) == (15, 0.0)
    assert [each["examples"] for each in result["curve"]] == [0] * 14 + [2]
