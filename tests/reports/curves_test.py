import json

import pytest
from matplotlib.figure import Figure

from tests.reports.tables_test import read
from tests.support.run_directories import write
from trainer.reports import curves
from trainer.reports.conditions import conditions
from trainer.reports.plots import GREY, png


def drawn(pictures):
    found = {}
    for picture in pictures:
        figure = Figure()
        picture.draw(figure)
        (found[picture.name],) = figure.axes
    return found


def learned(folder):
    groups = conditions(read(folder))
    return drawn(curves.learned(groups, curves.lines(groups)))


def thick(axes):
    """Returns the labelled lines: label → (xs, ys)."""
    lines = [each for each in axes.lines if not each.get_label().startswith("_")]
    return {each.get_label(): (list(each.get_xdata()), list(each.get_ydata())) for each in lines}


def test_the_mean_of_seeds_is_thick_and_each_is_thin(tmp_path):
    for seed, top1 in enumerate((0.5, 0.7)):
        write(tmp_path / f"run_seed{seed}", f"--seed={seed}", top1=top1)
    axes = learned(tmp_path)
    assert thick(axes["eval_top1_epochs"]) == {"run": ([1, 2], pytest.approx([30, 60]))}
    assert thick(axes["eval_top1_updates"])["run"][0] == [10, 20]
    assert len(axes["eval_top1_epochs"].lines) == 3
    xs, ys = thick(axes["train_loss_updates"])["run"]
    assert (xs[0], xs[-1], ys[-1]) == (1, 20, 1)


def test_the_average_has_pictures_of_its_own(tmp_path):
    write(tmp_path / "a", "--ema_decay=0.9")
    write(tmp_path / "b")
    groups = conditions(read(tmp_path))
    pictures = {p.name: p for p in curves.learned(groups, curves.lines(groups))}
    axes = drawn(pictures.values())
    assert thick(axes["eval_ema_top1_epochs"])["a"] == ([1, 2], pytest.approx([50, 90]))
    assert thick(axes["eval_top1_epochs"])["a"] == ([1, 2], pytest.approx([40, 80]))
    title = axes["eval_ema_top1_epochs"].get_title()
    assert title.startswith("Evaluation top-1 of the averaged parameters")
    caption = pictures["eval_top1_epochs"].caption
    assert caption.startswith("Measured with the parameters themselves")
    write(tmp_path / "c")
    groups = conditions(read(tmp_path)[1:])
    pictures = curves.learned(groups, curves.lines(groups))
    assert not [p for p in pictures if "ema" in p.name or "plain" in p.caption]


def test_runs_of_different_length_share_logarithmic_updates(tmp_path):
    write(tmp_path / "short", "--seed=1", updates=10)
    write(tmp_path / "long", "--anneal=cosine", updates=200)
    cut = write(tmp_path / "cut", "--anneal=polynomial")
    lines = (cut / "metrics.jsonl").read_text().splitlines(keepends=True)
    (cut / "metrics.jsonl").write_text("".join(lines[:3]))
    axes = learned(tmp_path)
    assert set(thick(axes["eval_top1_epochs"])) == {"short", "long", "cut"}
    assert thick(axes["eval_top1_epochs"])["cut"] == ([], [])
    assert len(thick(axes["train_loss_epochs"])["cut"][0]) == 3
    # On a linear axis, 10 updates would take a twentieth of the width of 200.
    assert axes["eval_top1_updates"].get_xscale() == "log"
    assert "log scale" in axes["eval_top1_updates"].get_xlabel()
    assert axes["eval_top1_epochs"].get_xlim()[0] == 0


def test_a_run_that_has_just_begun_does_not_make_the_axis_logarithmic(tmp_path):
    write(tmp_path / "long", updates=200)
    begun = write(tmp_path / "begun", "--anneal=cosine", updates=200, ended=False)
    lines = (begun / "metrics.jsonl").read_text().splitlines(keepends=True)
    (begun / "metrics.jsonl").write_text("".join(lines[:3]))
    axes = learned(tmp_path)["train_loss_updates"]
    assert len(axes.lines) == 2
    assert axes.get_xscale() == "linear"
    # All values are between 1 and 2.
    low, high = axes.get_ylim()
    assert len([tick for tick in axes.get_yticks() if low <= tick <= high]) >= 4


def test_a_single_point_is_drawn_as_a_dot(tmp_path):
    folder = write(tmp_path / "a")
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_text("".join(lines[:11]))
    axes = learned(tmp_path)
    (line,) = axes["eval_top1_epochs"].lines
    assert (len(line.get_xdata()), line.get_marker()) == (1, "o")
    assert axes["train_loss_epochs"].lines[0].get_marker() == ""


def test_both_accuracy_pictures_have_the_same_axis_and_name_its_start(tmp_path):
    write(tmp_path / "a", top1=0.9)
    groups = conditions(read(tmp_path))
    pictures = {p.name: p for p in curves.learned(groups, curves.lines(groups))}
    axes = drawn(pictures.values())
    limits = [axes[f"eval_top1_{x}"].get_ylim() for x in ("epochs", "updates")]
    assert limits[0] == limits[1]
    low, high = limits[0]
    assert 0 < low < 45 < 90 < high <= 100
    assert f"begins at {low:.0f}%, not at 0" in pictures["eval_top1_epochs"].caption


def test_a_loss_that_diverges_does_not_hide_the_others(tmp_path):
    write(tmp_path / "good")
    bad = write(tmp_path / "bad", "--anneal=cosine", ended=False)
    points = [json.loads(line) for line in (bad / "metrics.jsonl").read_text().splitlines()]
    points[-2]["loss"] = 1e30
    points[-1]["loss"] = float("nan")
    text = "".join(json.dumps(point) + "\n" for point in points)
    (bad / "metrics.jsonl").write_text(text)
    (bad / "diverged.txt").write_text("the loss is nan\n")
    groups = conditions(read(tmp_path))
    pictures = {p.name: p for p in curves.learned(groups, curves.lines(groups))}
    axes = drawn(pictures.values())["train_loss_epochs"]
    low, high = axes.get_ylim()
    assert (low < 1, high) == (True, 2 * 1.95)  # Both runs begin at 1.95.
    assert "Losses above 3.9 are off the axis" in pictures["train_loss_epochs"].caption
    (cross,) = [line for line in axes.lines if line.get_marker() == "x"]
    assert cross.get_ydata() == [high]


def test_schedules_are_steps_and_constants_are_sentences(tmp_path):
    folder = write(tmp_path / "a", noise=100.0)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for point in lines:
        point["batch_size"] = 100 if point["update"] <= 10 else 500
        if point["split"] == "train":
            point["image_size"] = 20 if point["update"] <= 10 else 28
        point["noise_scale"] = 93.75 if point["update"] <= 10 else 93.75000000000004
    text = "".join(json.dumps(point) + "\n" for point in lines)
    (folder / "metrics.jsonl").write_text(text)
    groups = conditions(read(tmp_path))
    pictures, still = curves.schedule(groups, curves.lines(groups))
    assert [p.name for p in pictures] == [
        "schedule_batch_size",
        "schedule_image_size",
        "schedule_gradient_noise_scale",
    ]
    assert "The momentum is 0.9 throughout." in still
    assert any("is 93.75 throughout" in sentence for sentence in still)
    axes = drawn(pictures)
    (line,) = axes["schedule_image_size"].lines
    assert {*line.get_ydata()} == {20, 28}
    (line,) = axes["schedule_batch_size"].lines
    assert line.get_drawstyle() == "steps-pre"
    assert (line.get_xdata()[0], line.get_ydata()[0]) == (0, 100)
    rises = [x for x, y in zip(*line.get_data(), strict=True) if y == 500]
    assert rises[0] == pytest.approx(1.1)  # The step is at the previous point, at epoch 1.


def test_one_measurement_is_not_the_value_of_the_whole_run(tmp_path):
    folder = write(tmp_path / "run", noise=40.0)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for point in lines[1:]:
        point.pop("gradient_noise_scale", None)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(point) + "\n" for point in lines))
    groups = conditions(read(tmp_path))
    (picture,), still = curves.schedule(groups, curves.lines(groups))
    assert picture.name == "schedule_gradient_noise_scale"
    assert not any("gradient noise" in sentence for sentence in still)
    assert png(picture).startswith(b"\x89PNG")


def test_the_first_and_the_best_of_many_conditions_are_in_colour(tmp_path):
    for i in range(30):
        write(tmp_path / f"{i:02}", f"--weight_decay={i}", top1=0.5 + i / 100)
    groups = conditions(read(tmp_path))
    lines = curves.lines(groups)
    coloured = [label for label, line in lines.items() if line != GREY]
    assert coloured == ["00", *(f"{i}" for i in range(23, 30))]
    assert len({lines[label] for label in coloured}) == 8
    # The description for readers who do not see the picture names the same ones.
    for picture in curves.learned(groups, lines):
        values = picture.alt.partition("Last values: ")[2].split("; ")
        assert [value.split()[0] for value in values] == coloured
