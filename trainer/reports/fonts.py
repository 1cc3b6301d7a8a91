"""Finds fonts of this machine for letters that matplotlib's own font lacks.

The names of classes may be in any script of the world, and matplotlib's own font has few scripts.
matplotlib draws a box for each letter that the chosen fonts lack.
"""

import contextlib
import functools
import logging
import unicodedata
from collections.abc import Iterable
from typing import NamedTuple

from matplotlib import font_manager
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

USUAL = "DejaVu Sans"
# The fonts of matplotlib and macOS with this prefix draw a box for each letter.
_BOXES = "LastResort"
# matplotlib would log a warning for each weight, such as bold, that a font lacks.
logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
INSTALL = "install a font that has them, such as those of Debian's fonts-noto"
_IGNORED = {"Cc", "Cf", "Zl", "Zp"}  # Unicode categories of characters that are not drawn.
_REGULAR = 400  # Font weight of regular text; bold text has the weight 700.
_VARIANTS = range(0xFE00, 0xFE10)  # Each of these selects a form of the character before it.


def families(letters: Iterable[str]) -> list[str]:
    """Returns the names of the fonts that draw `letters`; the first name is `USUAL`."""
    return list(_chosen(frozenset(letters))[0])


def lacking(letters: Iterable[str]) -> frozenset[str]:
    """Returns the letters in `letters` that no font of this machine has."""
    return _chosen(frozenset(letters))[1]


def replace_lacking(texts: Iterable[Text]) -> None:
    """Replaces each letter that no font of this machine has by a question mark."""
    for text in texts:
        if missing := lacking(text.get_text()):
            text.set_text(text.get_text().translate(dict.fromkeys(map(ord, missing), "?")))


@functools.lru_cache(maxsize=1024)
def _chosen(letters: frozenset[str]) -> tuple[tuple[str, ...], frozenset[str]]:
    """Returns the names of the fonts for `letters`, and the letters that no font has."""
    missing = {each for each in letters if _is_drawn(each)}
    missing -= _letters_of(str(font_manager.findfont(USUAL)))
    names = [USUAL]
    fonts = [*_others()] if missing else []
    while missing and fonts:
        # Takes the font that has the most of the missing letters. Equal fonts are in alphabetical
        # order, so the choice is always the same.
        found = max(fonts, key=lambda font: len(missing & _letters_of(*font[1:])))
        if not missing & _letters_of(*found[1:]):
            break
        fonts.remove(found)
        if drawn := missing & _drawn_by(found.family):
            names.append(found.family)
            missing -= drawn
    return tuple(names), frozenset(missing)


def _is_drawn(letter: str) -> bool:
    return unicodedata.category(letter) not in _IGNORED and ord(letter) not in _VARIANTS


class _Font(NamedTuple):
    family: str
    path: str
    face: int  # Index of the font in its file; a .ttc file holds several fonts.


@functools.cache
def _others() -> tuple[_Font, ...]:
    """Returns the most regular font of each family, except `USUAL` and families that draw boxes."""
    known = {str(entry.fname) for entry in font_manager.fontManager.ttflist}
    # matplotlib keeps its list of fonts in a file, which lacks fonts that were installed later.
    for path in {*font_manager.findSystemFonts()} - known:
        # A damaged font may raise any exception. matplotlib leaves such fonts out of its list.
        with contextlib.suppress(Exception):
            font_manager.fontManager.addfont(path)
    best: dict[str, font_manager.FontEntry] = {}
    for entry in sorted(font_manager.fontManager.ttflist, key=_unusual):
        best.setdefault(entry.name, entry)
    return tuple(
        _Font(family, str(best[family].fname), getattr(best[family], "index", 0))
        for family in sorted(best)
        if family != USUAL and not family.replace(" ", "").lstrip(".").startswith(_BOXES)
    )


def _unusual(entry: font_manager.FontEntry) -> tuple[bool, bool, int, str, int]:
    """Returns a sort key that is lowest for an upright font of normal width and regular weight."""
    unusual_weight = abs(int(entry.weight) - _REGULAR)
    return (
        *(entry.style != "normal", entry.stretch != "normal"),
        *(unusual_weight, str(entry.fname), getattr(entry, "index", 0)),
    )


def _drawn_by(family: str) -> frozenset[str]:
    """Returns the letters of the font file that matplotlib chooses for the name `family`."""
    try:
        # The name is in a list, because matplotlib would read "Own-12" as the font Own in size 12.
        wanted = font_manager.FontProperties(family=[family])
        found = font_manager.findfont(wanted, fallback_to_default=False)
        return _letters_of(str(found), getattr(found, "face_index", 0))
    except ValueError:
        return frozenset()


@functools.cache
def _letters_of(path: str, index: int = 0) -> frozenset[str]:
    """Returns the letters of a font; none if it is a bitmap font, which matplotlib cannot draw."""
    try:
        font = FT2Font(path, face_index=index) if index else FT2Font(path)
        return frozenset(map(chr, font.get_charmap())) if font.scalable else frozenset()
    except (OSError, RuntimeError, ValueError):
        return frozenset()
