"""Builds a report's section on the classes of one run, from the run's evaluation.json."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from trainer.reports import class_plots, html
from trainer.reports.conditions import UNSET
from trainer.reports.plots import Picture
from trainer.reports.run_record import RunRecord
from trainer.reports.tables import Table
from trainer.run_dir import class_evaluation

_MOST_ROWS = 100  # Largest number of classes in the table of classes.
_MOST_PAIRS = 20  # Largest number of rows in the table of confusions, and of names in a sentence.


def build(run: RunRecord, number: int | None = None) -> tuple[html.Section, list[Picture]]:
    """Returns the section, and the pictures in it.

    Args:
      run: a run with an evaluation by class, so `run.evaluation` is not None.
      number: number to append to the names of the pictures; None if they need no number.
    """
    found = run.evaluation
    assert found is not None
    names = [row["name"] for row in found["classes"]]
    suffix = "" if number is None else f"_{number}"
    confusion = class_plots.confusion(names, found["confusion"], f"confusion{suffix}")
    pictures = [confusion] if confusion else []
    pictures.append(class_plots.reliability(found["calibration"], f"reliability{suffix}"))
    body = html.paragraphs(_summary(run, found))
    body += html.table(_classes(found)) + html.paragraphs(
        _left_out(found, drawn=confusion is not None), "note"
    )
    body += html.figures(pictures)
    if pairs := _confusions(found):
        body += html.heading("The most frequent confusions") + html.table(pairs)
    if found["most_wrong"]:
        body += _most_wrong(found["most_wrong"])
    return html.Section(f"Classes of {run.name}", body), pictures


def _summary(run: RunRecord, found: Mapping[str, Any]) -> list[str]:
    """Returns lines about the evaluation, its results, and the classes without examples."""
    shares = {"Top-1": found["top1"], "balanced accuracy": found["balanced_accuracy"]}
    if len(found["classes"]) > class_evaluation.FEW_CLASSES:
        shares["top-5"] = found["top5"]
    calibration = found["calibration"]
    values = ", ".join(f"{name} {_percent(value)}%" for name, value in shares.items())
    newest = max([point["update"] for point in run.points], default=found["update"])
    later = f"; the run has since reached update {newest:,}" if newest > found["update"] else ""
    model = "averaged model" if found.get("evaluated_with") == "ema" else "model"
    lines = [
        f"{found['dataset']} {found['split']}, {found['examples']:,} examples, by the {model} of "
        f"update {found['update']:,}{later}.",
        f"{values}, loss {found['loss']:.3f}, expected calibration error "
        f"{_percent(calibration['ece'])}% in {calibration['bins']} bins.",
    ]
    if missing := found["without_support"]:
        shown = ", ".join(missing[:_MOST_PAIRS])
        more = len(missing) - _MOST_PAIRS
        others = f" and {more:,} others" if more > 0 else ""
        lines.append(f"The split has no examples of {shown}{others}.")
    return lines


def _tested(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the classes that have examples, in the order of rising F1."""
    tested = [row for row in found["classes"] if row["support"]]
    return sorted(tested, key=lambda row: row["f1"] or 0)


def _classes(found: Mapping[str, Any]) -> Table:
    head = ["class", "examples", "precision, %", "recall, %", "F1, %", "most often mistaken for"]
    rows = []
    for row in _tested(found)[:_MOST_ROWS]:
        other = row["mistaken_for"]
        mistakes = UNSET
        if other is not None:
            mistakes = f"{found['classes'][other]['name']} ({row['mistakes']:,})"
        shares = [_percent(row[name]) for name in ("precision", "recall", "f1")]
        rows.append([row["name"], f"{row['support']:,}", *shares, mistakes])
    return Table("numbers of each class", head, rows, {0, len(head) - 1})


def _left_out(found: Mapping[str, Any], *, drawn: bool) -> list[str]:
    """Returns a paragraph on the order of the table, and on classes or figures that are left out.

    `drawn` is whether the section has a picture of the confusion matrix.
    """
    note = "The class with the lowest F1 is the first."
    tested = len(_tested(found))
    if (more := tested - _MOST_ROWS) > 0:
        which = f"{more:,} of {tested:,} classes, whose F1 is not lower"
        note += f" Only in {class_evaluation.CSV}: {which}."
    if not drawn:
        note += f" A matrix of more than {class_plots.MOST_CLASSES:,} classes is not drawn."
    return [note]


def _confusions(found: Mapping[str, Any]) -> Table | None:
    """Returns a table of the most frequent wrong predictions; None if no prediction is wrong."""
    wrong = [cell for cell in found["confusion"] if cell[0] != cell[1]]
    wrong.sort(key=lambda cell: -cell[2])
    rows = []
    for label, predicted, count in wrong[:_MOST_PAIRS]:
        true, other = found["classes"][label], found["classes"][predicted]
        share = _percent(min(1.0, count / true["support"]) if true["support"] else None)
        rows.append([true["name"], f"{count:,}", share, other["name"]])
    head = ["class", "examples", "of the class, %", "taken for"]
    return Table("the most frequent confusions", head, rows, {0, 3}) if rows else None


def _most_wrong(found: Sequence[Mapping[str, Any]]) -> str:
    """Returns the most wrong pictures as HTML; paths are relative to the files' common folder."""
    note = (
        "Each picture has its class, the prediction, and the probabilities of both. The worst is "
    )
    note += "the first. Pictures with wrong labels, or of several things, may be here too."
    folder = _common_folder([each["path"] for each in found if each["path"] is not None])
    if folder:
        note += f" The files are below {folder}."
    pictures = [
        html.Thumbnail(
            each["thumbnail"],
            f"Picture of class {each['class']}, which the model takes for {each['predicted']}.",
            [
                f"{each['class']}, {_percent(each['class_probability'])}%",
                f"taken for {each['predicted']}, {_percent(each['predicted_probability'])}%",
                f"number {each['index']:,} of the split"
                if each["path"] is None
                else each["path"].removeprefix(f"{folder}/"),
            ],
        )
        for each in found
    ]
    return (
        html.heading("The most wrong pictures")
        + html.paragraphs([note], "note")
        + html.thumbnails(pictures)
    )


def _common_folder(paths: Sequence[str]) -> str:
    """Returns the lowest folder that holds all files; "" if there is none."""
    folders = [os.path.dirname(path) for path in paths]
    try:
        return os.path.commonpath(folders)
    except ValueError:  # The list is empty, or mixes absolute and relative paths.
        return ""


def _percent(share: float | None) -> str:
    return UNSET if share is None else f"{100 * share:.2f}"
