"""A picture of a report, the same for all: how lines tell apart, in colour and in grey print.

The colours are those of Okabe and Ito (2008), which colour-blind readers tell apart, without their
yellow, which is too pale for a line on white; each comes with a dash pattern.
"""

import dataclasses
import io
import re
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#000000", "#56b4e9", "#e69f00")
# In widths of the line, on and off; with seven colours, 42 lines are all different.
_DASHES: tuple[tuple[float, ...], ...] = (
    (),
    (5, 2),
    (1, 1.5),
    (6, 1.5, 1, 1.5),
    (9, 3),
    (6, 1.5, 1, 1.5, 1, 1.5),
)
_GREY = "#9a9a9a"
_WIDE = 26  # letters of a label, of which two columns fit
_RC: dict[Any, Any] = {
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "legend.handlelength": 3.2,
    "lines.linewidth": 1.6,
    "text.parse_math": False,  # Names of runs may have dollars.
    "svg.hashsalt": "crescendo",  # The same runs make the same page, byte for byte.
}


@dataclasses.dataclass(frozen=True)
class Line:
    """How a condition is drawn everywhere."""

    colour: str
    dashes: tuple[float, ...]

    @property
    def linestyle(self) -> tuple[int, tuple[float, ...] | None]:
        """As matplotlib has it."""
        return 0, self.dashes or None


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure that is drawn when it is wanted.

    Attributes:
      name: of its file.
      alt: what is seen, for who does not see it.
      caption: what has to be known to read it.
      draw: draws it.
      height: in inches, without the legend; all are as wide.
      legend: whether its lines are not those of the page's legend.
    """

    name: str
    alt: str
    caption: str
    draw: Callable[[Figure], None]
    height: float = 3.1
    legend: bool = False


def line(i: int) -> Line:
    """That of the i-th condition; those behind the 42nd are grey."""
    if i >= len(_COLOURS) * len(_DASHES):
        return GREY
    return Line(_COLOURS[i % len(_COLOURS)], _DASHES[i % len(_DASHES)])


GREY = Line(_GREY, ())


def svg(picture: Picture) -> bytes:
    """The picture in lines, to a hundredth of a point, without what the page's legend says."""
    return re.sub(
        rb'(?<=[ \n"])(-?\d+\.\d\d)\d+', rb"\1", _render(picture, "svg", legend=picture.legend)
    )


def png(picture: Picture) -> bytes:
    """The picture by itself, its legend below it."""
    return _render(picture, "png", legend=True)


def _render(picture: Picture, kind: str, *, legend: bool) -> bytes:
    with matplotlib.rc_context(_RC):
        figure = Figure(figsize=(4.8, picture.height), layout="constrained")
        picture.draw(figure)
        handles, labels = _labelled(figure.axes)
        if legend and handles:
            columns = 2 if max(map(len, labels)) <= _WIDE else 1
            figure.set_figheight(picture.height + 0.19 * -(-len(labels) // columns))
            figure.legend(handles, labels, loc="outside lower center", ncols=columns)
        buffer = io.BytesIO()
        metadata = {"Date": None} if kind == "svg" else None
        figure.savefig(buffer, format=kind, dpi=200, metadata=metadata)
    return buffer.getvalue()


def _labelled(every: Sequence[Axes]) -> tuple[list[Any], list[str]]:
    """What the figure's legend names, each once."""
    found: dict[str, Any] = {}
    for axes in every:
        handles, labels = axes.get_legend_handles_labels()
        found = dict(zip(labels, handles, strict=True)) | found
    return list(found.values()), list(found)
