"""Fonts of a machine, for pictures with names in any script."""

import pathlib

import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager

from trainer.reports import fonts


def _write_font(path: pathlib.Path, name: str, letters: str, weight: int = 400) -> None:
    """Writes a font that draws each of `letters` as a square."""
    pen = TTGlyphPen(None)
    for move, *point in ((pen.moveTo, 0, 0), *((pen.lineTo, *p) for p in ((0, 9), (9, 9), (9, 0)))):
        move(tuple(100 * value for value in point))
    pen.closePath()
    glyph = pen.glyph()
    names = [".notdef", *(f"u{ord(letter):x}" for letter in letters)]
    font = FontBuilder(1000)
    font.setupGlyphOrder(names)
    font.setupCharacterMap(dict(zip(map(ord, letters), names[1:], strict=True)))
    font.setupGlyf(dict.fromkeys(names, glyph))
    font.setupHorizontalMetrics(dict.fromkeys(names, (1000, 0)))
    font.setupHorizontalHeader(ascent=900, descent=-100)
    about = {"familyName": name, "styleName": "Regular", "psName": name.replace(" ", "")}
    font.setupNameTable(about)
    font.setupOS2(usWeightClass=weight)
    font.setupPost()
    font.save(path)


@pytest.fixture
def no_other_fonts(monkeypatch):
    """The machine has the fonts of matplotlib's wheel alone."""
    own = [each for each in font_manager.fontManager.ttflist if each.name == fonts.USUAL]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", own)
    monkeypatch.setattr(font_manager, "findSystemFonts", list)
    caches = fonts._chosen, fonts._others
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


@pytest.fixture
def installed(no_other_fonts, monkeypatch, tmp_path):
    """Function that installs fonts, each given as its name, letters and optionally weight."""

    def install(*each):
        for number, about in enumerate(each):
            _write_font(tmp_path / f"{number}.ttf", *about)
        (tmp_path / "damaged.ttf").write_bytes(b"not a font")
        found = [str(path) for path in tmp_path.iterdir()]
        monkeypatch.setattr(font_manager, "findSystemFonts", lambda: found)

    return install


@pytest.fixture
def chinese_font(installed):
    """Name of a font with two Chinese letters; another one has boxes, as one of matplotlib's."""
    installed(("Crescendo Test", "猫狗"), ("Last Resort Test", "猫狗一"))
    return "Crescendo Test"
