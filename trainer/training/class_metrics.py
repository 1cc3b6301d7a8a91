"""Measures a classifier class by class, and how well its probabilities agree with its accuracy.

All numbers come from the predictions of one evaluation. If a value is not defined, such as the
recall of a class without examples, it is None and not 0.
"""

from typing import Any

import numpy as np

from trainer.training.evaluation import Predictions

# Number of bins of equal width for `calibration`, from Guo et al. 2017 (arXiv:1706.04599), §5.
BINS = 15


def confusion(predictions: Predictions, classes: int) -> np.ndarray:
    """Returns the non-zero cells of the confusion matrix, which has `classes` rows and columns.

    Returns:
      int64 [m, 3] for m cells: label, predicted label, number of examples. Rows are sorted.
    """
    cells, counts = np.unique(
        predictions.labels * classes + predictions.predicted, return_counts=True
    )
    return np.stack([cells // classes, cells % classes, counts], axis=1)


def by_class(cells: np.ndarray, classes: int) -> list[dict[str, Any]]:
    """Returns a dictionary of metrics for each class, from the `cells` that `confusion` returns.

    - support: number of examples with this label.
    - predicted: number of examples that the model predicts to be of this class.
    - correct: number of examples with this label that are predicted correctly.
    - precision = correct / predicted; recall = correct / support;
      f1 = 2 correct / (support + predicted). All three are None if `support` is 0. The precision is
      also None if `predicted` is 0.
    - mistaken_for: index of the most frequent wrong prediction for examples with this label; None
      without a wrong prediction. Of several equally frequent predictions, the lowest index is used.
    - mistakes: number of examples with this label and this wrong prediction; 0 if there are none.
    """
    labels, predicted, counts = cells.T
    right = labels == predicted

    def total(places: np.ndarray, numbers: np.ndarray) -> list[int]:
        sums = np.zeros(classes, np.int64)
        np.add.at(sums, places, numbers)
        return sums.tolist()

    numbers = zip(
        total(labels, counts),
        total(predicted, counts),
        total(labels[right], counts[right]),
        strict=True,
    )
    rows = [
        {
            "support": support,
            "predicted": taken,
            "correct": correct,
            "precision": correct / taken if support and taken else None,
            "recall": correct / support if support else None,
            "f1": 2 * correct / (support + taken) if support else None,
            "mistaken_for": None,
            "mistakes": 0,
        }
        for support, taken, correct in numbers
    ]
    for label, other, count in cells[~right].tolist():
        if count > rows[label]["mistakes"]:
            rows[label] |= {"mistaken_for": other, "mistakes": count}
    return rows


def balanced_accuracy(rows: list[dict[str, Any]]) -> float:
    """Returns the mean recall of the classes that have examples."""
    recalls = [row["recall"] for row in rows if row["recall"] is not None]
    return sum(recalls) / len(recalls)


def calibration(predictions: Predictions, bins: int = BINS) -> dict[str, Any]:
    """Returns the reliability curve and the expected calibration error (ECE).

    The confidence of an example is the probability of the predicted class. Bin i, counted from 0,
    has the examples with a confidence in (i / bins, (i + 1) / bins]. The ECE is the mean of
    |accuracy − mean confidence| over the bins, weighted by each bin's number of examples.

    Returns:
      A dictionary with the number of bins (`bins`), the ECE (`ece`), and an entry for each bin
      (`curve`). An entry has the bin's limits, its number of examples, and their mean confidence
      and accuracy. Confidence and accuracy are None if the bin is empty.
    """
    right = predictions.labels == predictions.predicted
    upper = np.arange(1, bins) / bins
    places = np.searchsorted(upper, predictions.confidences, side="left")  # [n], 0 to bins − 1
    counts = np.bincount(places, minlength=bins).tolist()
    confidences = np.bincount(places, predictions.confidences, minlength=bins).tolist()
    correct = np.bincount(places, right, minlength=bins).tolist()
    curve = [
        {
            "low": i / bins,
            "high": (i + 1) / bins,
            "examples": count,
            "confidence": confidences[i] / count if count else None,
            "accuracy": correct[i] / count if count else None,
        }
        for i, count in enumerate(counts)
    ]
    gaps = sum(abs(correct[i] - confidences[i]) for i in range(bins))
    return {"bins": bins, "ece": gaps / len(right), "curve": curve}
