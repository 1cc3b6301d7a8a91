"""Fonts of the machine are chosen by the letters that matplotlib draws with them."""

import pytest

from trainer.reports import fonts

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
    """Of two files of a family, matplotlib draws with one."""
    installed(("Own", "猫"), ("Own", "狗"))
    assert len(fonts.lacking(CHINESE)) == 1
    assert fonts.families(CHINESE) == [fonts.USUAL, "Own"]
    assert fonts.families(fonts.lacking(CHINESE)) == [fonts.USUAL]


def test_several_fonts_draw_one_name(installed):
    installed(("B-12", "猫狗"), ("A", "一"), ("C", "猫"))
    assert fonts.families("a猫狗一") == [fonts.USUAL, "B-12", "A"]
