"""Pictures of an evaluation: the confusion matrix, and the curve of accuracy by confidence."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trainer.data.class_names import few
from trainer.reports import fonts
from trainer.reports.plots import Picture, line
from trainer.system.output import clean, log

# A matrix with more classes than this is not drawn: a cell would be smaller than a pixel.
MOST_CLASSES = 1000
_NAMED = 30  # The names of more classes than this would overlap, so the axes have no names.
_COUNTED = 12  # The numbers of more classes than this would overlap, so the cells have no numbers.
_NAME_LENGTH = 20  # Largest number of characters of a class's name that are shown.


def confusion(
    names: Sequence[str], cells: Sequence[Sequence[int]], name: str = "confusion"
) -> Picture | None:
    """Returns a picture of the confusion matrix; None if no class or over 1,000 classes occur.

    A class occurs if it has examples or is predicted. The other classes are left out.

    Args:
      names: names of all classes.
      cells: (label, prediction, number of examples) of each non-zero cell of the matrix.
      name: file name of the picture, without suffix.
    """
    shown = sorted({index for label, predicted, _ in cells for index in (label, predicted)})
    if not 0 < len(shown) <= MOST_CLASSES:
        return None
    place_of = {index: place for place, index in enumerate(shown)}
    counts = np.zeros((len(shown), len(shown)), np.int64)
    for label, predicted, count in cells:
        counts[place_of[label], place_of[predicted]] = count
    left_out = len(names) - len(shown)
    unseen = ""
    if left_out:
        unseen = f" Left out, because they do not occur: {left_out:,} of {len(names):,} classes."
    right = int(np.trace(counts))
    labels, by_number = _labels([names[i] for i in shown], shown)
    return Picture(
        name=name,
        alt=f"Confusion matrix of {len(shown)} classes: {right:,} of {counts.sum():,} examples are "
        "on the diagonal, where the prediction is the class.",
        caption="Each row is a class, and its colours are the shares of its examples by prediction."
        f"{' Numbers are examples.' if len(shown) <= _COUNTED else ''}{unseen}{by_number}",
        draw=functools.partial(_draw_confusion, names=labels, counts=counts),
        height=4.4,
    )


def _labels(names: Sequence[str], numbers: Sequence[int]) -> tuple[list[str], str]:
    """Returns a label for each class, and a sentence about names that are replaced by numbers.

    If the fonts of this machine lack one of a name's letters, the name is replaced, and a message
    is logged. If no name is replaced, the sentence is empty. `numbers` are the classes' indices.
    """
    labels = [_shortened(name) for name in names]
    if len(names) > _NAMED:
        return labels, ""  # So many labels are not drawn.
    replaced = {i: label for i, label in zip(numbers, labels, strict=True) if fonts.lacking(label)}
    if not replaced:
        return labels, ""
    pairs = ", ".join(f"class {i} is {label}" for i, label in replaced.items())
    log(
        f"the figures show numbers for {few(list(replaced.values()))}: no font of this machine has "
        f"their letters; {fonts.INSTALL}"
    )
    labels = [
        f"class {i}" if i in replaced else label for i, label in zip(numbers, labels, strict=True)
    ]
    return labels, f" No font of the machine has the letters of some names: {pairs}."


def _shortened(text: str) -> str:
    """Returns a class's name on one line, of at most `_NAME_LENGTH` characters, escaped for SVG."""
    shown = " ".join(clean(text).split())
    return shown if len(shown) <= _NAME_LENGTH else f"{shown[: _NAME_LENGTH - 1]}…"


def _draw_confusion(figure: Figure, names: Sequence[str], counts: np.ndarray) -> None:
    axes: Axes = figure.subplots()
    # A class without examples has a row of zeros, so the divisor is at least 1.
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    # Interpolation would blend single cells of a large matrix with their neighbours.
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="none")
    count = len(names)
    letters = min(9.0, 150 / count)
    if count <= _NAMED:
        axes.set_xticks(range(count), names, rotation=90, fontsize=letters)
        axes.set_yticks(range(count), names, fontsize=letters)
    if count <= _COUNTED:
        # The width of a digit is 0.65 times the font size. The longest number must fit into a cell.
        size = min(letters, 150 / count / (0.65 * len(str(counts.max()))))
        for (row, column), number in np.ndenumerate(counts):
            ink = "white" if shares[row, column] > 0.5 else "black"
            if number:
                # A number lies in its cell, so the figure's layout need not measure it.
                place: dict[str, Any] = {"ha": "center", "va": "center", "in_layout": False}
                axes.text(column, row, str(number), color=ink, size=size, **place)
    axes.set(title="Confusion matrix", xlabel="prediction", ylabel="class")
    axes.grid(visible=False)
    figure.colorbar(image, ax=axes, label="share of the class", shrink=0.8)


def reliability(calibration: Mapping[str, Any], name: str = "reliability") -> Picture:
    """Returns a picture of accuracy against confidence, the probability of the prediction.

    Args:
      calibration: the object `calibration` of evaluation.json, with `bins`, `curve` and `ece` (the
        expected calibration error).
      name: file name of the picture, without suffix.
    """
    filled = [each for each in calibration["curve"] if each["examples"]]
    values = ", ".join(f"{each['accuracy']:.2f} at {each['confidence']:.2f}" for each in filled)
    return Picture(
        name=name,
        alt=f"Line chart of accuracy against confidence. {values}.",
        caption="On the dashed line, a confidence is the share of predictions that are right. "
        "Below it, the model is too sure. Bars: the share of examples in each bin. Expected "
        f"calibration error: {100 * calibration['ece']:.2f}% in {calibration['bins']} bins.",
        draw=functools.partial(_draw_reliability, curve=calibration["curve"]),
        height=4.4,
    )


def _draw_reliability(figure: Figure, curve: Sequence[Mapping[str, Any]]) -> None:
    axes: Axes = figure.subplots()
    examples = max(1, sum(each["examples"] for each in curve))
    axes.bar(
        [each["low"] for each in curve],
        [each["examples"] / examples for each in curve],
        [each["high"] - each["low"] for each in curve],
        align="edge",
        color="#d9d9d9",
        edgecolor="white",
    )
    axes.plot([0, 1], [0, 1], color="#5c5c5c", linestyle=(0, (5, 2)), linewidth=1)
    filled = [each for each in curve if each["examples"]]
    axes.plot(
        [each["confidence"] for each in filled],
        [each["accuracy"] for each in filled],
        color=line(0).colour,
        marker="o",
        markersize=4,
    )
    axes.set(
        title="Reliability of the probabilities",
        xlabel="confidence: probability of the prediction",
        ylabel="accuracy; share of examples",
        xlim=(0, 1),
        ylim=(0, 1.02),
    )
