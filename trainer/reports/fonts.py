"""Finds fonts of this machine for letters that matplotlib's own font lacks.

The names of classes are in all scripts of the world, and matplotlib's font has few of them. It
draws a box for each letter that no font in its list has.
"""

import contextlib
import functools
import logging
import unicodedata
from collections.abc import Iterable

from matplotlib import font_manager
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

USUAL = "DejaVu Sans"
_BOXES = "Last Resort"  # matplotlib's own font that draws a box for each letter.
# It reports each weight that a font lacks.
logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
INSTALL = "install a font that has them, such as those of Debian's fonts-noto-cjk"
_IGNORED = {"Cc", "Cf", "Zl", "Zp"}  # Categories of characters that are not drawn.
_REGULAR = (400, "normal", "regular", "book")  # Weights of a text that is not bold.
_VARIANTS = range(0xFE00, 0xFE10)  # Each of these chooses a form of the letter before it.


def families(letters: Iterable[str]) -> list[str]:
    """Returns the names of the fonts that draw `letters`, the usual font first."""
    return list(_chosen(frozenset(letters))[0])


def lacking(letters: Iterable[str]) -> frozenset[str]:
    """Returns those of `letters` that no font of this machine has."""
    return _chosen(frozenset(letters))[1]


def replace_lacking(texts: Iterable[Text]) -> None:
    """Replaces letters that no font has by question marks."""
    for text in texts:
        if missing := lacking(text.get_text()):
            text.set_text(text.get_text().translate(dict.fromkeys(map(ord, missing), "?")))


@functools.lru_cache(maxsize=1024)
def _chosen(letters: frozenset[str]) -> tuple[tuple[str, ...], frozenset[str]]:
    """Returns the names of the fonts for `letters`, and the letters that none of them has."""
    missing = {each for each in letters if _is_drawn(each)}
    missing -= _letters_of(font_manager.findfont(USUAL))
    names = [USUAL]
    while missing:
        # The first in the alphabet of those that have the most letters, so that pages are repeated.
        best = max(_others(), key=lambda font: len(missing & _letters_of(font[1])), default=None)
        if best is None or not missing & _letters_of(best[1]):
            break
        names.append(best[0])
        missing -= _letters_of(best[1])
    return tuple(names), frozenset(missing)


def _is_drawn(letter: str) -> bool:
    return unicodedata.category(letter) not in _IGNORED and ord(letter) not in _VARIANTS


def _others() -> list[tuple[str, str]]:
    """Returns the names and files of the fonts in the usual style, sorted."""
    known = {entry.fname for entry in font_manager.fontManager.ttflist}
    # matplotlib keeps its list, which lacks fonts that were installed later.
    for path in {*font_manager.findSystemFonts()} - known:
        with contextlib.suppress(OSError, RuntimeError, UnicodeError):
            font_manager.fontManager.addfont(path)
    fonts = font_manager.fontManager.ttflist
    return sorted(
        {
            (each.name, each.fname)
            for each in fonts
            if each.style == "normal"
            and each.weight in _REGULAR
            and each.name != USUAL
            and not each.name.startswith(_BOXES)
        }
    )


@functools.cache
def _letters_of(path: str) -> frozenset[str]:
    """Returns the letters that a file draws; matplotlib does not draw a font of bitmaps."""
    try:
        font = FT2Font(path)
        return frozenset(map(chr, font.get_charmap())) if font.scalable else frozenset()
    except (OSError, RuntimeError, ValueError):
        return frozenset()
