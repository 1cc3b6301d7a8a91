import dataclasses
import itertools

import pytest
from PIL import Image

from tests.support.configs import layouts, parsed, updates
from trainer.errors import UserError
from trainer.reports import plan_plot
from trainer.schedule import plan
from trainer.schedule.trajectory import from_config

FLAGS = {
    "step": ["--anneal=step", "--anneal_epochs=50%", "--anneal_with=batch_size"],
    "cyclical": ["--anneal=cyclical", "--cycle_epochs=1"],
    "momentum": ["--momentum=0.98", "--momentum_warmup_epochs=1"],
}


def planned(kind):
    config = parsed(*FLAGS[kind], "--epochs=3")
    schedule = from_config(config, 60_000, 1)
    return schedule, plan.ramps(schedule, layouts(config)), config


@pytest.mark.parametrize("kind", FLAGS)
def test_the_line_goes_through_updates_of_the_run(kind):
    schedule, ramps, _ = planned(kind)
    points = plan_plot.points(schedule, ramps)
    assert points == sorted(points, key=lambda point: point[0])
    assert points[0] == (0, schedule.at(0))
    actual = dict(updates(schedule))
    for position, setting in points:
        # A flat ramp ends where the next begins, with its own Setting.
        assert actual.get(position) == setting or setting in actual.values()


def test_the_line_reaches_the_peaks_of_a_cycle():
    schedule, ramps, _ = planned("cyclical")
    rates = [setting.learning_rate for _, setting in plan_plot.points(schedule, ramps)]
    assert max(rates) == max(setting.learning_rate for _, setting in updates(schedule))
    assert len(rates) > 500


@pytest.mark.parametrize("kind", FLAGS)
def test_a_changing_momentum_has_its_own_panel(tmp_path, kind):
    path = tmp_path / "plan.png"
    plan_plot.draw(*planned(kind), str(path))
    with Image.open(path) as picture:
        assert (picture.height > picture.width) == (kind == "momentum")


def test_the_line_of_image_sizes_steps_where_they_change(tmp_path):
    config = parsed(*FLAGS["step"], "--epochs=3", "--image_sizes=14@0,28@2,14@2.5")
    schedule = from_config(config, 60_000, 1)
    ramps = plan.ramps(schedule, layouts(config))
    epochs, sides = plan_plot.image_sizes(schedule, ramps)
    assert (epochs[0], epochs[-1]) == (0, 3)
    changes = [i for i, (a, b) in enumerate(itertools.pairwise(sides)) if a != b]
    assert [(sides[i], sides[i + 1]) for i in changes] == [(14, 28), (28, 14)]
    for i, at in zip(changes, (2, 2.5), strict=True):
        assert epochs[i] == epochs[i + 1] == pytest.approx(at, abs=0.02)
    heights = []
    for each in (config, parsed(*FLAGS["step"], "--epochs=3")):
        schedule = from_config(each, 60_000, 1)
        path = tmp_path / "plan.png"
        plan_plot.draw(schedule, plan.ramps(schedule, layouts(each)), each, str(path))
        with Image.open(path) as picture:
            heights.append(picture.height)
    assert heights[0] > heights[1]


@pytest.mark.parametrize(
    ("name", "start"),
    [("p.PNG", b"\x89PNG"), ("p", b"\x89PNG"), ("p.pdf", b"%PDF"), ("p.svg", b"<?xml")],
)
def test_the_suffix_chooses_the_kind_of_the_file(tmp_path, name, start, recwarn):
    schedule, ramps, config = planned("step")
    plan_plot.draw(schedule, ramps, config, str(tmp_path / name))
    assert (tmp_path / name).read_bytes().startswith(start)
    assert not recwarn.list


@pytest.mark.parametrize("name", ["image_folder:a$\\q$b", "image_folder:\u5199\u771f"])
def test_a_name_of_any_letters_is_drawn(tmp_path, name, recwarn):
    schedule, ramps, config = planned("step")
    config = dataclasses.replace(config, dataset=name)
    for path in (tmp_path / "plan.png", tmp_path / "plan.svg"):
        plan_plot.draw(schedule, ramps, config, str(path))
        assert path.stat().st_size > 1000
    assert not recwarn.list


def test_ticks_are_far_enough_apart():
    assert plan_plot._ticks([128, 640]) == [640, 128]
    assert plan_plot._ticks([128, 640, 3200, 5888]) == [5888, 640, 128]
    many = [10**-4 * 1.1**i for i in range(121)]
    ticks = plan_plot._ticks(many)
    assert 3 <= len(ticks) <= 6
    assert all(each in (1e-4, 1e-3, 1e-2, 0.1, 1, 10) for each in ticks)


def test_a_plot_path_that_cannot_be_written_is_rejected(tmp_path):
    with pytest.raises(UserError, match=r"--plot=.*nothing/x.png cannot be written"):
        plan_plot.draw(*planned("step"), f"{tmp_path}/nothing/x.png")
