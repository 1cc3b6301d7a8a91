"""Builds the content of evaluation.json, which the command `evaluate --per_class` writes."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from trainer.data.class_names import logit_names
from trainer.errors import UserError
from trainer.training import class_metrics, most_wrong
from trainer.training.evaluation import Evaluator, Predictions


def build(
    evaluator: Evaluator, class_names: Sequence[str], logits: int, augment: str
) -> dict[str, Any]:
    """Returns the metrics of each class, the calibration and the most wrong examples.

    Args:
      evaluator: evaluator of the model; its last evaluation must have run to the end.
      class_names: names of the classes that the model has learned.
      logits: number of the model's logits, which may be larger than the number of classes.
      augment: value of --augment in training; it decides which part of an image is evaluated.

    Raises:
      UserError: if an output of the model is not finite.
    """
    found = evaluator.predictions()
    assert found is not None  # The evaluation was not stopped.
    _check_finite(found)
    names = logit_names(class_names, logits)
    cells = class_metrics.confusion(found, logits)
    rows = class_metrics.by_class(cells, logits)
    learned = zip(names, rows[: len(class_names)], strict=False)
    return {
        "balanced_accuracy": class_metrics.balanced_accuracy(rows),
        "without_support": [name for name, row in learned if not row["support"]],
        "classes": [{"name": name, **row} for name, row in zip(names, rows, strict=True)],
        "confusion": cells.tolist(),
        "calibration": class_metrics.calibration(found),
        "most_wrong": most_wrong.find(found, evaluator.source, names, augment),
    }


def _check_finite(found: Predictions) -> None:
    wrong = ~(np.isfinite(found.losses) & np.isfinite(found.confidences))
    if wrong.any():
        raise UserError(
            f"the model's outputs are not finite for {np.count_nonzero(wrong):,} of "
            f"{len(wrong):,} examples; the first has index {found.indices[wrong.argmax()]:,}.\n"
            "Name an earlier checkpoint with --checkpoint, or leave --per_class out."
        )
