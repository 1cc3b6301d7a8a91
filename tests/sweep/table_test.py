import dataclasses

import pytest

from trainer.sweep.table import Row, best, cells, failed, text


def row(batch, seed, top1=None, status=0, reason=None):
    flags = {"initial_batch_size": batch, "seed": seed}
    results = top1 and {"top1": top1, "loss": 1 - top1, "updates": 100, "seconds": 7.25}
    return Row(f"initial_batch_size={batch},seed={seed}", flags, status, reason, results)


ROWS = [
    row("128", "0", 0.90),
    row("128", "1", 0.92),
    row("128", "2", 0.94),
    row("256", "0", 0.95),
    row("256", "1", None, 3, "the loss is nan\nlower the rate"),
    row("512", "0", None, None),
]


def test_a_line_says_which_results_are_of_an_average():
    averaged = [dataclasses.replace(row, evaluated_with="ema") for row in ROWS[:2]]
    line = "top1 and loss are of the average of the parameters"
    assert text(averaged).split("\n\n")[-1] == line
    *_, found, _ = text([*averaged, *ROWS[2:]]).split("\n\n")
    assert found == f"{line} at 2 of 4 points"
    assert line not in text(ROWS)


def test_cells_hold_mean_and_sample_deviation_over_the_seeds():
    first, second, third = cells(ROWS)
    assert first.flags == {"initial_batch_size": "128"}
    assert (first.n, first.points) == (3, 3)
    assert first.mean == pytest.approx(
        {"top1": 0.92, "loss": 0.08, "updates": 100, "seconds": 7.25}
    )
    # √((0.02² + 0 + 0.02²) / (3 − 1))
    assert first.spread == pytest.approx({"top1": 0.02, "loss": 0.02, "updates": 0, "seconds": 0})
    assert (second.n, second.points, second.spread) == (1, 2, None)
    assert (third.n, third.points, third.mean) == (0, 1, None)


def test_the_best_cell_has_the_highest_mean():
    assert best(cells(ROWS)).flags == {"initial_batch_size": "256"}
    assert best(cells(ROWS[:3])).flags == {"initial_batch_size": "128"}
    assert best(cells(ROWS[4:])) is None


def test_the_table_shows_status_results_and_failures():
    points, of_cells, top, why = text(ROWS).split("\n\n")
    lines = [line.split() for line in points.splitlines()]
    assert lines[0] == [
        "initial_batch_size",
        "seed",
        "status",
        "top1",
        "loss",
        "updates",
        "seconds",
    ]
    assert lines[1] == ["128", "0", "0", "0.9000", "0.1000", "100", "7.2"]
    assert lines[5] == ["256", "1", "3"]
    assert lines[6] == ["512", "0"]
    assert "0.9200 ± 0.0200" in of_cells.splitlines()[1]
    assert "3 of 3" in of_cells.splitlines()[1]
    assert top == "best: initial_batch_size=256: top1 0.9500"
    assert why == "initial_batch_size=256,seed=1: status 3\n  the loss is nan\n  lower the rate"
    assert failed(ROWS) == [ROWS[4]]


def test_without_seeds_there_is_no_table_of_cells():
    rows = [Row("augment=none", {"augment": "none"}, 0, None, ROWS[0].results)]
    points, top = text(rows).split("\n\n")
    assert len(points.splitlines()) == 2
    assert top == "best: augment=none: top1 0.9000"


def test_a_sweep_over_seeds_alone_has_one_cell():
    rows = [Row(f"seed={i}", {"seed": str(i)}, 0, None, ROWS[i].results) for i in range(3)]
    assert text(rows).splitlines()[-1] == "best: top1 0.9200 ± 0.0200"


def test_a_flagfile_is_shown_without_its_folder():
    rows = [Row("flagfile=grow", {"flagfile": "flags/grow.flags"}, None, None, None)]
    assert text(rows).splitlines()[1].split() == ["grow"]
