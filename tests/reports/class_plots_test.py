import io
import itertools
import warnings
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure

from tests.support.class_evaluations import CONTENT, HOSTILE
from trainer.reports import class_plots, fonts
from trainer.reports.plots import png, svg


def drawn(picture):
    figure = Figure(figsize=(4.8, picture.height), layout="constrained")
    picture.draw(figure)
    return figure.axes[0]


def test_rows_are_classes_and_colours_their_shares():
    cells = [[0, 0, 3], [0, 2, 1], [2, 2, 5]]
    picture = class_plots.confusion(["cat", "dog", "owl"], cells)
    axes = drawn(picture)
    np.testing.assert_array_equal(axes.images[0].get_array(), [[0.75, 0.25], [0, 1]])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat", "owl"]
    assert [text.get_text() for text in axes.texts] == ["3", "1", "5"]
    assert "8 of 9 examples" in picture.alt
    assert "Left out, because they do not occur: 1 of 3 classes." in picture.caption


@pytest.mark.parametrize("classes", [1, 2, 12, 13, 30, 31, 1000])
def test_any_number_of_classes_up_to_1000_is_drawn(classes):
    names = [f"a class of a long name, number {i}" for i in range(classes)]
    cells = [[i, i, 10] for i in range(classes)] + [[0, classes - 1, 1]] * (classes > 1)
    picture = class_plots.confusion(names, cells)
    assert png(picture).startswith(b"\x89PNG")
    axes = drawn(picture)
    assert bool(axes.texts) == (classes <= 12)
    assert axes.images[0].get_array().shape == (classes, classes)
    named = [label.get_text() for label in axes.get_xticklabels()]
    assert ("a class of a long n…" in named) == (classes <= 30)


def test_numbers_stay_in_their_cells():
    picture = class_plots.confusion(
        [str(i) for i in range(12)], [[i, j, 98765 - i] for i in range(12) for j in range(12)]
    )
    figure = Figure(figsize=(4.8, picture.height), layout="constrained")
    picture.draw(figure)
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert len(boxes) == 144
    assert all(a.x1 < b.x0 for a, b in itertools.pairwise(boxes[:12]))
    assert all(a.y0 > b.y1 for a, b in itertools.pairwise(boxes[::12]))


def test_more_or_no_classes_are_not_drawn():
    assert class_plots.confusion(["a"] * 1001, [[i, i, 1] for i in range(1001)]) is None
    assert class_plots.confusion(["a"], []) is None


CHINESE = "猫狗"  # matplotlib's own font lacks both letters.


def test_names_whose_letters_no_font_has_become_numbers(no_other_fonts, logged):
    names = ["owl", CHINESE, "قط", "кошка"]
    picture = class_plots.confusion(names, [[i, i, 1] for i in range(4)])
    shown = [label.get_text() for label in drawn(picture).get_yticklabels()]
    assert shown == ["owl", "class 1", "قط", "кошка"]
    assert picture.caption.endswith("letters of some names: class 1 is 猫狗.")
    (line,) = logged
    assert line.startswith("the figures show numbers for 猫狗: no font of this machine has their ")
    many = [f"{CHINESE}{i}" for i in range(31)]
    assert "class 1" not in class_plots.confusion(many, [[i, i, 1] for i in range(31)]).caption


def test_a_font_of_the_machine_draws_the_names_that_it_has(chinese_font, logged):
    names, cells = ["owl", CHINESE], [[0, 0, 1], [1, 1, 1]]
    picture = class_plots.confusion(names, cells)
    assert [label.get_text() for label in drawn(picture).get_yticklabels()] == names
    assert logged == []
    with_font = svg(picture)
    assert fonts.families("a" + CHINESE) == [fonts.USUAL, chinese_font]
    assert f"{chinese_font.replace(' ', '')}-".encode() in with_font  # It names each outline.
    with_both = class_plots.confusion([*names, "一"], [*cells, [2, 2, 1]])
    assert [label.get_text() for label in drawn(with_both).get_yticklabels()][2] == "class 2"


def test_hostile_names_make_valid_pictures():
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib's font lacks some letters.
        names = [HOSTILE, "-->", "\ud800", "日本"]
        picture = class_plots.confusion(names, [[i, i, 1] for i in range(4)])
        ElementTree.parse(io.BytesIO(svg(picture)))


def test_the_reliability_curve_skips_empty_bins():
    picture = class_plots.reliability(CONTENT["calibration"])
    axes = drawn(picture)
    diagonal, curve = axes.lines
    assert curve.get_xydata().tolist() == [[0.8, 0.75]]
    assert diagonal.get_xydata().tolist() == [[0, 0], [1, 1]]
    assert [bar.get_height() for bar in axes.patches] == [0, 1]
    assert "5.00% in 2 bins" in picture.caption
    assert "0.75 at 0.80" in picture.alt
