import dataclasses

import pytest

from tests.support.run_directories import write
from trainer.reports import report_builder, run_record, tables
from trainer.reports.conditions import conditions
from trainer.run_dir import training_data
from trainer.run_dir.training_data import TrainingData

# Their sample variance is (0.1² + 0 + 0.1²) / (3 − 1) = 0.1².
TOP1 = (0.7, 0.8, 0.9)


def read(folder):
    found, _ = run_record.find([folder])
    return [
        run_record.read(path, name)
        for path, name in zip(found, run_record.names(found), strict=True)
    ]


@pytest.fixture
def runs(tmp_path):
    for seed, top1 in enumerate(TOP1):
        write(tmp_path / f"decay_seed{seed}", f"--seed={seed}", top1=top1, updates=40)
        grow = ["--anneal_with=batch_size", f"--seed={seed}"]
        write(tmp_path / f"grow_seed{seed}", *grow, top1=top1 + 0.05, updates=10, seconds=5.0)
    write(tmp_path / "late", "--anneal_with=hybrid", updates=20, ended=False)
    return read(tmp_path)


def test_seeds_are_one_condition(runs):
    found = conditions(runs)
    assert [(each.label, len(each.runs)) for each in found] == [
        ("decay", 3),
        ("grow", 3),
        ("late", 1),
    ]
    assert found[1].values == {"anneal_with": "batch_size"}


def test_examples_of_python_programs_are_one_condition_if_their_hash_is_equal(tmp_path):
    for name, digest in (("a_seed0", "0a" * 16), ("a_seed1", "0a" * 16), ("b_seed0", "0b" * 16)):
        folder = write(tmp_path / name, "--dataset=python", f"--seed={name[-1]}")
        data = TrainingData(1000, (4, 4, 1), 2, (0.0,), (1.0,), digest=digest)
        training_data.keep(folder, data)
    found = conditions(read(tmp_path))
    assert [(each.label, len(each.runs)) for each in found] == [("a", 2), ("b", 1)]
    assert found[1].values == {"dataset": "python 0b0b0b0b"}
    (folder / training_data.FILE).write_text("{}")
    assert read(tmp_path)[-1].flags["dataset"] == "python"


def test_runs_that_differ_in_no_flag_are_noticed_by_their_seed(tmp_path):
    for name in ("relu_seed0", "gelu_seed0", "tanh_seed1"):
        write(tmp_path / name, "--model=python:model", f"--seed={name[-1]}")
    (found,) = conditions(read(tmp_path))
    assert found.repeats_a_seed
    assert not dataclasses.replace(found, runs=found.runs[1:]).repeats_a_seed
    text, _ = report_builder.report(read(tmp_path))
    assert "These conditions have several runs of one seed: " in text


def test_forks_of_several_seeds_are_one_condition(tmp_path):
    """Each is a fork of the run with its seed; a fork of another run is another condition."""
    for seed in range(2):
        for parent in ("decay", "grow"):
            origin = f"--fork_from=runs/{parent}_seed{seed}@newest"
            write(tmp_path / f"{parent}_longer_seed{seed}", origin, f"--seed={seed}")
    found = conditions(read(tmp_path))
    assert [(each.label, len(each.runs)) for each in found] == [
        ("decay_longer", 2),
        ("grow_longer", 2),
    ]


def test_means_deviations_and_savings_match_closed_forms(runs):
    table = tables.by_condition(conditions(runs))
    rows = {row[0]: dict(zip(table.head, row, strict=True)) for row in table.rows}
    decay, grow, late = rows["decay"], rows["grow"], rows["late"]
    assert decay["top-1, %"] == "80.00 ± 10.00"
    assert grow["top-1, %"] == "85.00 ± 10.00"
    assert decay["updates saved"] == "reference"
    assert grow["updates saved"] == "75.0%"
    assert grow["time saved"] == "50.0%"
    assert grow["anneal_with"] == "batch_size"
    assert (late["runs ended"], late["top-1, %"], late["updates saved"]) == ("0 of 1", "–", "–")


def test_a_zero_deviation_is_shown_except_for_updates(tmp_path):
    for seed in range(2):
        write(tmp_path / f"seed{seed}", f"--seed={seed}", updates=20)
    (row,) = tables.by_condition(conditions(read(tmp_path))).rows
    assert row[2:5] == ["80.00 ± 0.00", "1.000 ± 0.000", "20"]


def test_a_slower_condition_has_negative_savings(tmp_path):
    write(tmp_path / "a", updates=10)
    write(tmp_path / "b", "--anneal=cosine", updates=40)
    write(tmp_path / "c", "--anneal=polynomial", updates=10, seconds=10.001)
    (_, b, c) = tables.by_condition(conditions(read(tmp_path))).rows
    assert (b[5], b[7]) == ("−300.0%", "0.0%")
    assert (c[5], c[7]) == ("0.0%", "0.0%")


def test_every_run_has_a_row(runs):
    table = tables.by_run(runs)
    assert [row[0] for row in table.rows] == [run.name for run in runs]
    late = dict(zip(table.head, table.rows[-1], strict=True))
    assert late["run"] == "late"
    assert late["state"] == "not finished"
    # These are the values of its last evaluation.
    assert (late["updates"], late["top-1, %"], late["seconds"]) == ("20", "80.00", "–")


def test_a_run_with_an_average_shows_what_counts(tmp_path):
    write(tmp_path / "a", "--ema_decay=0.9")
    write(tmp_path / "b", "--ema_decay=0.9", "--evaluate_with=plain", "--seed=1")
    write(tmp_path / "c", "--ema_decay=0.9", "--seed=2", ended=False)
    write(tmp_path / "d")
    runs = read(tmp_path)
    table = tables.by_run(runs)
    rows = [dict(zip(table.head, row, strict=True)) for row in table.rows]
    found = [(row["top-1, %"], row["best top-1, %"], row["notes"]) for row in rows]
    ema = "top-1 and loss are of the average; the plain parameters ended at 80.00%"
    plain = "top-1 and loss are of the plain parameters; the average ended at 90.00%"
    assert found == [
        ("90.00", "90.00", ema),
        ("80.00", "80.00", plain),
        ("90.00", "90.00", ema),
        ("80.00", "80.00", ""),
    ]


def test_results_of_averages_and_of_plain_parameters_are_not_one_condition(tmp_path):
    for seed in range(4):
        counts = ["--evaluate_with=plain"] if seed > 1 else []
        write(tmp_path / f"{seed}", "--ema_decay=0.9", f"--seed={seed}", *counts)
    found = conditions(read(tmp_path))
    assert [each.values for each in found] == [{"evaluate_with": x} for x in ("ema", "plain")]
    means = [round(each.spread_of("top1").mean, 6) for each in found]
    assert means == [0.9, 0.8]
    write(tmp_path / "without", "--seed=5")  # It has no average that could count.
    assert len(conditions(read(tmp_path))) == 3


def test_summary_names_the_highest_top1_and_the_fewest_updates(runs):
    best, fewest = tables.summary(conditions(runs))
    assert best == "Highest mean top-1: 85.00 ± 10.00% (n = 3), by grow."
    assert fewest.startswith("Fewest updates: 10, by grow, 4 times fewer than decay (40)")


def test_many_differing_flags_have_a_separate_table(tmp_path):
    flags = ["--anneal=cosine", "--augment=medium", "--optimizer=lars", "--precision=bfloat16"]
    write(tmp_path / "a")
    write(tmp_path / "b", *flags)
    found = conditions(read(tmp_path))
    assert tables.by_condition(found).head[-4:] == ["augment", "precision", "optimizer", "anneal"]
    write(tmp_path / "c", *flags, "--weight_decay=1e-4")
    found = conditions(read(tmp_path))
    assert tables.by_condition(found).head[-1] == "time saved"
    assert len(tables.flags(found).head) == 6


def test_flags_in_all_labels_are_not_in_the_table(tmp_path):
    for size, rate in ((32, 0.1), (64, 0.1), (64, 0.2)):
        flags = [f"initial_batch_size={size}", f"base_learning_rate={rate}"]
        write(tmp_path / ",".join(flags), *(f"--{flag}" for flag in flags))
    assert tables.flags(conditions(read(tmp_path))).head == ["condition"]
    write(tmp_path / "initial_batch_size=128", "--initial_batch_size=128")
    table = tables.flags(conditions(read(tmp_path)))
    assert table.head == ["condition", "base_learning_rate"]


def test_a_run_without_flags_is_its_own_condition(tmp_path):
    for name in ("a", "b", "c"):
        write(tmp_path / name)
    for name in ("b", "c"):
        (tmp_path / name / "flags.txt").unlink()
    assert [each.label for each in conditions(read(tmp_path))] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (["x=1,seed=0", "x=1,seed=1"], ["x=1"]),
        (["seed0/x", "seed1/x"], ["x"]),
        (["seed=0", "seed=1"], ["all seeds"]),
        (["first", "other"], ["first and 1 more"]),
        (["run1", "run2", "run30"], ["run"]),
    ],
)
def test_labels_of_runs_that_differ_in_the_seed(tmp_path, names, labels):
    for seed, name in enumerate(names):
        write(tmp_path / name, f"--seed={seed}")
    assert [each.label for each in conditions(read(tmp_path))] == labels


def test_a_flag_of_a_controller_differs_only_among_its_runs(tmp_path):
    write(tmp_path / "a", "--eval_every_epochs=2")
    write(tmp_path / "b", "--anneal=plateau", "--eval_every_epochs=1", "--anneal_epochs=")
    found = conditions(read(tmp_path))
    assert [each.values for each in found] == [{"anneal": "constant"}, {"anneal": "plateau"}]
    write(tmp_path / "c", "--anneal=plateau", "--eval_every_epochs=0.5")
    table = tables.flags(conditions(read(tmp_path)))
    assert table.head == ["condition", "anneal", "eval_every_epochs"]
    assert [row[2] for row in table.rows] == ["–", "1", "0.5"]


def test_labels_are_unique(tmp_path):
    for i, anneal in enumerate(("cosine", "constant", "polynomial")):
        write(tmp_path / f"run_seed{i}", f"--anneal={anneal}")
    labels = [each.label for each in conditions(read(tmp_path))]
    assert labels == ["run", "run (2)", "run (3)"]
