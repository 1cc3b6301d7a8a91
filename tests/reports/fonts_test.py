"""Fonts of the machine are chosen by the letters that matplotlib draws with them."""

import pytest

from trainer.reports import fonts
from trainer.reports.plots import Picture, svg

CHINESE = "猫狗"


@pytest.mark.parametrize("weight", [300, 500])
def test_a_family_without_a_regular_weight_is_used(installed, weight):
    installed(("Own", CHINESE, weight))
    assert fonts.families(CHINESE) == [fonts.USUAL, "Own"]
    assert not fonts.lacking(CHINESE)


@pytest.mark.parametrize("name", ["Last Resort", "LastResort High-Efficiency", ".LastResort"])
def test_a_font_of_boxes_has_no_letters(installed, name):
    installed((name, CHINESE))
    assert fonts.lacking(CHINESE) == {*CHINESE}


def test_only_letters_of_the_file_that_matplotlib_chooses_count(installed):
    """A family may have two files, and matplotlib draws with one of them."""
    installed(("Own", "猫"), ("Own", "狗"))
    assert len(fonts.lacking(CHINESE)) == 1
    assert fonts.families(CHINESE) == [fonts.USUAL, "Own"]
    assert fonts.families(fonts.lacking(CHINESE)) == [fonts.USUAL]


def test_several_fonts_draw_one_name(installed):
    installed(("B-12", "猫狗"), ("A", "一"), ("C", "猫"))
    assert fonts.families("a猫狗一") == [fonts.USUAL, "B-12", "A"]


def test_a_legend_is_drawn_with_the_fonts_of_its_letters(chinese_font):
    def draw(figure):
        figure.subplots().plot([1, 2], label=CHINESE)

    page = svg(Picture("name", "alt", "caption", draw, legend=True))
    assert f"{chinese_font.replace(' ', '')}-".encode() in page  # It names each outline.
