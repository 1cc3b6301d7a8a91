"""evaluation.json and evaluation.csv: the evaluation of each class by `evaluate --per_class`.

evaluation.json has all results, and evaluation.csv has a row for each class. Training neither reads
nor writes these files, so a run may be evaluated while it trains. This module does not import
TensorFlow, because `report` uses this module and must start fast.
"""

import base64
import binascii
import csv
import io
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from trainer.run_dir import temporary_folder
from trainer.system import typed_json
from trainer.system.atomic_file import write_atomic, write_json
from trainer.system.output import OutputError
from trainer.system.typed_json import WrongError, fields, integer, list_of, number, optional, text

FILE, CSV = "evaluation.json", "evaluation.csv"
_MOST_BYTES = 2**28  # Largest size of the file: 10 million cells of the confusion matrix fit.
# With at most this many classes, top-5 accuracy says little, so tables and pages leave it out.
FEW_CLASSES = 10

_SHARE = number(0, 1)
_CLASS = fields(
    {
        "name": text,
        "support": integer(),
        "predicted": integer(),
        "correct": integer(),
        "precision": optional(_SHARE),
        "recall": optional(_SHARE),
        "f1": optional(_SHARE),
        "mistaken_for": optional(integer()),
        "mistakes": integer(),
    }
)
_BIN = fields(
    {
        "low": _SHARE,
        "high": _SHARE,
        "examples": integer(),
        "confidence": optional(_SHARE),
        "accuracy": optional(_SHARE),
    }
)


def _png(value: Any) -> str:
    """Checks that the value is a PNG file in base64, so that a page may embed it unchanged."""
    try:
        content = base64.b64decode(text(value), validate=True)
    except (binascii.Error, ValueError) as error:
        raise WrongError("is not base64") from error
    if not content.startswith(b"\x89PNG\r\n\x1a\n"):
        raise WrongError("is not a PNG file")
    return base64.b64encode(content).decode()


_PICTURE = fields(
    {
        "index": integer(),
        "path": optional(typed_json.file_name),
        "class": text,
        "predicted": text,
        "class_probability": _SHARE,
        "predicted_probability": _SHARE,
        "thumbnail": _png,
    }
)
_FIELDS = fields(
    {
        "dataset": typed_json.file_name,
        "split": typed_json.file_name,
        "update": integer(),
        "examples": integer(1),
        "loss": number(),
        "top1": _SHARE,
        "top5": _SHARE,
        "balanced_accuracy": _SHARE,
        "without_support": list_of(text),
        "classes": list_of(_CLASS),
        "confusion": list_of(list_of(integer(), 3)),
        "calibration": fields({"bins": integer(1), "ece": _SHARE, "curve": list_of(_BIN)}),
        "most_wrong": list_of(_PICTURE),
    },
    {"evaluated_with": typed_json.one_of("plain", "ema")},
)


def write(folder: pathlib.Path, content: Mapping[str, Any]) -> None:
    """Writes evaluation.json and evaluation.csv; each file appears complete or not at all.

    Raises:
      OutputError: if a file cannot be written.
    """
    try:
        # Two evaluations of one run may write at once, so each has temporary files of its own.
        with temporary_folder.beside(folder / FILE) as work:
            write_atomic(work / CSV, _csv(content))
            write_json(work / FILE, content, indent=None)
            for name in (CSV, FILE):
                os.replace(work / name, folder / name)
    except OSError as error:
        raise OutputError(
            f"{folder / FILE} cannot be written: {error.strerror}.\n"
            "Free disk space, or make the folder writable, and give the same command again."
        ) from error


def _csv(content: Mapping[str, Any]) -> str:
    buffer = io.StringIO()
    rows = csv.writer(buffer)
    names = ("support", "predicted", "correct", "precision", "recall", "f1")
    rows.writerow(["class", *names, "mistaken_for", "mistakes"])
    classes = content["classes"]
    for each in classes:
        other = each["mistaken_for"]
        values = (each[name] for name in names)  # None becomes an empty cell.
        mistaken_for = "" if other is None else classes[other]["name"]
        rows.writerow([each["name"], *values, mistaken_for, each["mistakes"]])
    return buffer.getvalue()


def read(folder: pathlib.Path) -> dict[str, Any] | None:
    """Returns the content of the evaluation.json in `folder`, or None if it does not exist.

    Raises:
      DamagedError: if a value is missing or impossible.
      OSError: if the file cannot be read.
    """
    return typed_json.read_existing(folder / FILE, _checked, _MOST_BYTES)


def _checked(value: Any) -> dict[str, Any]:
    """Checks the content of evaluation.json: each index names a class, and no bin is missing."""
    found = _FIELDS(value)
    classes = len(found["classes"])
    for i, (label, predicted, _) in enumerate(found["confusion"]):
        if max(label, predicted) >= classes:
            raise WrongError(
                f"has an index that is not one of {classes} classes", f"confusion[{i}]"
            )
    for i, each in enumerate(found["classes"]):
        if (each["mistaken_for"] or 0) >= classes:
            raise WrongError(f"is not one of {classes} classes", f"classes[{i}].mistaken_for")
    if len(found["calibration"]["curve"]) != found["calibration"]["bins"]:
        raise WrongError("does not have an entry for each bin", "calibration.curve")
    return found
