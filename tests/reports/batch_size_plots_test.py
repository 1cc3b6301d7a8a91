import itertools

import pytest
from matplotlib.figure import Figure

from tests.reports.tables_test import read
from tests.support.run_directories import write
from trainer.reports import batch_size_plots
from trainer.reports.conditions import conditions


def drawn(picture):
    figure = Figure()
    picture.draw(figure)
    return figure.axes[0]


def grid(folder, sizes, rates, *flags, skip=(), **values):
    for b in sizes:
        for r in rates:
            if (b, r) not in skip:
                # Highest at batch 64 and rate 0.2.
                top1 = 0.9 - abs(b - 64) / 1000 - abs(r - 0.2)
                size, rate = f"--initial_batch_size={b}", f"--base_learning_rate={r}"
                name = "_".join([str(b), str(r), *flags])
                write(folder / name, size, rate, *flags, top1=top1, **values)


def test_accuracy_against_batch_size(tmp_path):
    for augment in ("none", "strong"):
        for size, top1 in ((32, 0.6), (128, 0.7), (512, 0.5)):
            for seed, more in ((0, -0.02), (1, 0.02)):
                flags = [f"--augment={augment}", f"--initial_batch_size={size}", f"--seed={seed}"]
                write(tmp_path / "".join(flags), *flags, top1=top1 + more)
    (picture,) = batch_size_plots.against_batch(conditions(read(tmp_path)))
    axes = drawn(picture)
    handles, labels = axes.get_legend_handles_labels()
    assert labels == ["augment=none", "augment=strong"]
    line, _, (bars,) = handles[0]
    assert line.get_xdata().tolist() == [32, 128, 512]
    assert line.get_ydata().tolist() == pytest.approx([60, 70, 50])
    # Two values, each 2% from their mean, have a sample deviation of 2 √2.
    ends = [segment[1][1] - segment[0][1] for segment in bars.get_segments()]
    assert ends == pytest.approx([2 * 2 * 2**0.5] * 3)
    assert "sample standard deviation" in picture.caption
    assert "70.0% at 128" in picture.alt


def test_a_flag_that_is_not_set_is_not_named_beside_others(tmp_path):
    for size, flags in itertools.product(
        (32, 64), (["none"], ["medium"], ["medium", "--clip_norm=5"])
    ):
        run = [f"--initial_batch_size={size}", f"--augment={flags[0]}", *flags[1:]]
        write(tmp_path / "".join(run), *run)
    (picture,) = batch_size_plots.against_batch(conditions(read(tmp_path)))
    assert drawn(picture).get_legend_handles_labels()[1] == [
        *("augment=medium", "augment=medium, clip_norm=5", "augment=none")
    ]


def test_a_ghost_batch_that_follows_the_batch_is_not_a_condition(tmp_path):
    for size, ghost in ((2, 2), (4, 4), (128, 32)):
        write(tmp_path / str(size), f"--initial_batch_size={size}", f"--ghost_batch_size={ghost}")
    (picture,) = batch_size_plots.against_batch(conditions(read(tmp_path)))
    assert drawn(picture).get_legend_handles_labels()[1] == []
    assert "These flags follow the batch size: ghost_batch_size." in picture.caption


def test_conditions_without_a_common_axis_are_not_drawn(tmp_path):
    write(tmp_path / "a")
    write(tmp_path / "b", "--initial_batch_size=640", "--anneal=cosine")
    write(tmp_path / "c", "--initial_batch_size=320", "--anneal=polynomial")
    found = conditions(read(tmp_path))
    assert batch_size_plots.against_batch(found) == []
    assert batch_size_plots.heat_maps(found) == []


def test_the_heat_map_marks_the_best_cell(tmp_path):
    grid(tmp_path, (32, 64, 128), (0.1, 0.2), skip=[(128, 0.2)])
    write(tmp_path / "late", "--initial_batch_size=128", "--base_learning_rate=0.2", ended=False)
    (picture,) = batch_size_plots.heat_maps(conditions(read(tmp_path)))
    axes = drawn(picture)
    assert [text.get_text() for text in axes.texts] == ["76.8", "80.0", "73.6", "86.8", "90.0", "×"]
    (frame,) = axes.patches
    assert frame.get_xy() == (0.5, 0.5)  # Second column, second row.
    assert "90.00% (n = 1) at batch size 64 and base_learning_rate 0.2" in picture.caption


def test_numbers_of_ten_batch_sizes_do_not_overlap(tmp_path):
    """Ten is the number of batch sizes in the recipes for Masters & Luschi's figures."""
    grid(tmp_path, [2**i for i in range(1, 11)], (2**-11, 2**-10))
    (picture,) = batch_size_plots.heat_maps(conditions(read(tmp_path)))
    figure = Figure(figsize=(4.8, picture.height), layout="constrained")
    picture.draw(figure)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    for row in (axes.texts[:10], axes.texts[10:], axes.get_xticklabels()):
        boxes = [text.get_window_extent() for text in row]
        assert len(boxes) == 10
        assert all(a.x1 < b.x0 for a, b in itertools.pairwise(boxes))


def test_each_value_of_another_flag_has_a_map_with_the_same_colours(tmp_path):
    grid(tmp_path, (32, 64), (0.1, 0.2))
    grid(tmp_path, (32, 64), (0.1, 0.2), "--augment=strong")
    # A single batch size makes no map.
    grid(tmp_path, (32,), (0.1, 0.2), "--augment=medium")
    one, other = batch_size_plots.heat_maps(conditions(read(tmp_path)))
    assert one.name != other.name
    assert [drawn(each).get_title() for each in (one, other)] == [
        "Final top-1 (%)\naugment=none",
        "Final top-1 (%)\naugment=strong",
    ]
    limits = [drawn(each).images[0].get_clim() for each in (one, other)]
    assert limits[0] == limits[1] == pytest.approx((76.8, 90))
