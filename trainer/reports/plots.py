"""Draws a report's pictures in one style.

Lines differ in their colours, and in their dashes for prints without colour. The colours are from
Okabe and Ito (2008); colour-blind readers can distinguish these colours. The yellow of this palette
is omitted, because a yellow line on white is too pale.
"""

import dataclasses
import io
import re
import warnings
from collections.abc import Callable
from typing import Any, cast

import matplotlib
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from trainer.reports import fonts

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#000000", "#56b4e9", "#e69f00")
# Lengths of dashes and gaps, in line widths; () means a solid line. Seven colours and six patterns
# give 42 different lines.
_DASHES: tuple[tuple[float, ...], ...] = (
    (),
    (5, 2),
    (1, 1.5),
    (6, 1.5, 1, 1.5),
    (9, 3),
    (6, 1.5, 1, 1.5, 1, 1.5),
)
_WIDE = 26  # A legend has two columns if each label has at most this many characters.
_DPI = 200  # Pixels per inch, also of a matrix that an SVG file embeds as an image.
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
    "text.parse_math": False,  # Names of runs may contain dollar signs, which mark formulas.
    "svg.hashsalt": "crescendo",  # A fixed salt makes the page repeatable, byte for byte.
}


@dataclasses.dataclass(frozen=True)
class Line:
    """The line style of a condition (runs that differ only in the seed) in all pictures."""

    colour: str
    dashes: tuple[float, ...]

    @property
    def linestyle(self) -> tuple[int, tuple[float, ...] | None]:
        """The dash pattern in matplotlib's form."""
        return 0, self.dashes or None


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure of a report, drawn on demand.

    Attributes:
      name: file name without suffix.
      alt: description for readers who cannot see the picture.
      caption: text below the picture, such as the meaning of its symbols.
      draw: function that draws the picture into a figure.
      height: height without the legend, in inches; all pictures have the same width.
      legend: whether a page shows the picture's own legend; a PNG file always shows it.
    """

    name: str
    alt: str
    caption: str
    draw: Callable[[Figure], None]
    height: float = 3.1
    legend: bool = False


GREY = Line("#9a9a9a", ())


def line(i: int) -> Line:
    """Returns the line of condition i, counted from 0; grey from the 43rd condition on."""
    if i >= len(_COLOURS) * len(_DASHES):
        return GREY
    return Line(_COLOURS[i % len(_COLOURS)], _DASHES[i % len(_DASHES)])


def svg(picture: Picture) -> bytes:
    """Returns the picture as SVG, with coordinates cut to two decimals."""
    content = _render(picture, "svg", legend=picture.legend)
    return re.sub(rb'(?<=[ \n"])(-?\d+\.\d\d)\d+', rb"\1", content)


def png(picture: Picture) -> bytes:
    """Returns the picture as PNG, with its legend below."""
    return rendered(picture, "png")


def rendered(picture: Picture, kind: str) -> bytes:
    """Returns the picture, with its legend below, as a file of the kind, such as png or pdf.

    Raises:
      ValueError: if matplotlib does not know the kind.
    """
    return _render(picture, kind, legend=True)


def _render(picture: Picture, kind: str, *, legend: bool) -> bytes:
    with matplotlib.rc_context(_RC), warnings.catch_warnings():
        # matplotlib warns of each letter that it cannot draw. The user needs no such message.
        warnings.filterwarnings("ignore", message="Glyph")
        figure = _drawn(picture)
        letters = {letter for text in _texts(figure) for letter in text.get_text()}
        letters |= {letter for label in _handles(figure) for letter in label}
        matplotlib.rcParams["font.family"] = fonts.families(letters)
        if len(matplotlib.rcParams["font.family"]) > 1:
            figure = _drawn(picture)  # A text keeps the fonts that were set when it was made.
        handles = _handles(figure)
        if legend and handles:
            columns = 2 if max(map(len, handles)) <= _WIDE else 1
            figure.set_figheight(picture.height + 0.19 * -(-len(handles) // columns))
            entries = list(handles.values()), list(handles)
            figure.legend(*entries, loc="outside lower center", ncols=columns)
        fonts.replace_lacking(_texts(figure))
        buffer = io.BytesIO()
        if kind == "png":  # `savefig` draws twice; for a confusion matrix, this takes 0.1 s more.
            figure.set_dpi(_DPI)
            FigureCanvasAgg(figure).print_png(buffer)
        else:
            undated = {"Date": None} if kind == "svg" else None
            figure.savefig(buffer, format=kind, dpi=_DPI, metadata=undated)
    return buffer.getvalue()


def _drawn(picture: Picture) -> Figure:
    figure = Figure(figsize=(4.8, picture.height), layout="constrained")
    picture.draw(figure)
    return figure


def _handles(figure: Figure) -> dict[str, Artist]:
    """Returns the artists that the legend explains, by label; each label occurs once."""
    pairs = (zip(*axes.get_legend_handles_labels(), strict=True) for axes in figure.axes)
    return {label: handle for each in pairs for handle, label in each}


def _texts(figure: Figure) -> list[Text]:
    return cast(list[Text], figure.findobj(Text))
