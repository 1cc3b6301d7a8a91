"""Every hostile content, in the place of every file of a run directory, for every command.

A command that only looks names the damage and goes on; one that would go on from a file ends in
status 2, with two lines that name it. None ends in a traceback, waits, or fills the memory.
"""

import json
import re
import shutil

import pytest

from tests.support.configs import done, parsed
from tests.support.hostile import (
    CONTENTS,
    EVERY,
    POSSIBLE,
    RESULT,
    VALUES,
    put,
    results,
    text,
)
from tests.support.run_directories import write
from trainer.config.flagfile import to_flagfile
from trainer.errors import UserError
from trainer.reports import run_record
from trainer.run_dir import exports, metrics, result, training_data
from trainer.sweep import outcomes

FILES = ("flags.txt", "metrics.jsonl", "result.json", "diverged.txt", "lock")
# A text of one line, or an empty one, is not damage in a file that is not JSON.
_FREE = {"diverged.txt", "lock"}


def two_lines(error, *named):
    lines = error.splitlines()
    assert 1 <= len(lines) <= 2, error
    assert all(len(line) < 1000 for line in lines), error
    for word in named:
        assert word in lines[0]


def test_report_has_a_row_for_every_damaged_run(capsys, tmp_path):
    runs = tmp_path / "runs"
    whole = write(runs / "whole")
    for file in (*FILES, "evaluation.json"):
        for what in EVERY:
            damaged = shutil.copytree(whole, runs / f"{file}-{what}")
            if file == "diverged.txt" or file == "lock":
                (damaged / "result.json").unlink()
            put(damaged / file, what)
    for what, content in results().items():
        damaged = shutil.copytree(whole, runs / f"result-{what}")
        (damaged / "result.json").write_text(content)
    page = tmp_path / "report.html"
    status, out, error = done(capsys, "report", str(runs), f"--output={page}")
    assert status == 0
    html = re.sub("<wbr>", "", page.read_text(encoding="utf-8"))
    said = dict(line.split(": ", 2)[1:] for line in error.splitlines())
    assert "Traceback" not in out + error
    for folder in runs.iterdir():
        assert f">{folder.name}</th>" in html
        file, _, what = folder.name.partition("-")
        if file == "result":
            field = what.partition("-")[0]
            assert f"result.json is damaged: {field}" in said[folder.name]
        elif folder != whole and not (file in _FREE and what in CONTENTS):
            assert file in said[folder.name], folder.name
            assert re.search(
                "damaged|cannot be read|is missing|ends at update 0", said[folder.name]
            )


def test_every_field_of_a_point_of_the_log(tmp_path):
    whole = json.loads((write(tmp_path / "run") / "metrics.jsonl").read_text().splitlines()[0])
    whole |= dict.fromkeys(("top5", "gradient_norm", "gradient_noise_scale", "input_wait"), 0.5)
    whole |= {"examples_per_second": 10.0}
    log = tmp_path / "metrics.jsonl"
    for name in [*metrics.TAGS, "time", "split"]:
        for what, value in VALUES.items():
            line = text({k: json.dumps(v) for k, v in whole.items()} | {name: value})
            log.write_text(f"{line}\n{json.dumps(whole)}\n")
            said = []
            points = metrics.read(log, said.append)
            assert len(points) + len(said) == 2, (name, what)
            if said:
                assert f"line 1 of {log} is damaged and left out: {name}" in said[0]
            else:
                possible = ("nan", "an_infinity", "400_digits_and_a_fraction", *POSSIBLE)
                assert what in possible, (name, what)


def test_points_of_any_numbers_are_drawn(capsys, tmp_path):
    """Draws the extremes of the values that the reader accepts, by field."""
    for name in metrics.TAGS:
        for what in ("large", "tiny", "nan", "an_infinity", "negative", "2^63"):
            folder = write(tmp_path / "runs" / f"{name}-{what}", ended=False)
            lines = (folder / "metrics.jsonl").read_text().splitlines()
            changed = [
                text({k: json.dumps(v) for k, v in json.loads(line).items()} | {name: VALUES[what]})
                for line in lines[:2]
            ]
            (folder / "metrics.jsonl").write_text("\n".join([*changed, *lines[2:], ""]))
    page = tmp_path / "report.html"
    status, _, error = done(capsys, "report", str(tmp_path / "runs"), f"--output={page}")
    assert status == 0, error


def test_plan_names_the_damage_and_goes_on(capsys, tmp_path):
    flags = ["--plan_replicas=2", "--train_examples=1000", f"--model_dir={tmp_path}", "--epochs=1"]
    for what in EVERY:
        put(tmp_path / "result.json", what)
        status, out, error = done(capsys, "plan", *flags)
        assert (status, "the duration is not known" in out) == (0, True), error
        two_lines(error, f"{tmp_path}/result.json", "its times are not known")
        file = tmp_path / "result.json"
        file.rmdir() if file.is_dir() else file.unlink()
    for what, content in results().items():
        (tmp_path / "result.json").write_text(content)
        status, _, error = done(capsys, "plan", *flags)
        assert status == 0, (what, error)
        two_lines(error, f"{tmp_path}/result.json is damaged: {what.partition('-')[0]}")
    for what, fields in POSSIBLE.items():
        (tmp_path / "result.json").write_text(
            text({**RESULT, **dict.fromkeys(fields, VALUES[what])})
        )
        assert done(capsys, "plan", *flags)[0] == 0


def test_sweep_names_damaged_points_in_its_table(capsys, tmp_path):
    hostile = [("flags.txt", what) for what in EVERY] + [("result.json", what) for what in EVERY]
    grid_flag = f"--sweep=seed={','.join(map(str, range(len(hostile) + 1)))}"
    flags = ["--epochs=2", grid_flag, f"--model_dir={tmp_path}", "--format=json"]
    for seed, (file, what) in enumerate([*hostile, ("none", "whole")]):
        folder = write(tmp_path / f"seed={seed}", f"--seed={seed}")
        if file != "none":
            put(folder / file, what)
    # Flags that can be read and are others' would end the sweep before it starts, as they should.
    for seed, (file, what) in enumerate(hostile):
        if (file, what) == ("flags.txt", "nothing"):
            put(tmp_path / f"seed={seed}" / file, "zeros")
    (tmp_path / "sweep.json").write_text('{"points": []}')
    status, out, error = done(capsys, "sweep", *flags)
    assert status == 2, error
    found = json.loads(out)["points"]
    assert [row["status"] for row in found] == [2] * len(hostile) + [0]
    for (file, _), row in zip(hostile, found, strict=False):
        assert file in row["reason"]
        assert len(row["reason"].splitlines()) == 2
    assert found[-1]["results"]["top1"] == 0.8
    assert error.count("is left out") == len(hostile)


def test_sweep_begins_a_damaged_list_of_its_points_anew(capsys, tmp_path):
    """A report on all of these sweeps names each list that is damaged again."""
    folders = [tmp_path / what for what in EVERY]
    for folder in folders:
        write(folder / "seed=0", "--seed=0")
        put(folder / "sweep.json", folder.name)
        status, out, error = done(
            capsys, "sweep", "--sweep=seed=0", "--epochs=2", f"--model_dir={folder}"
        )
        assert (status, error) == (0, ""), folder
        message, _, table = out.partition("\n1 of 1 points are finished\n")
        two_lines(message, f"{folder}/sweep.json", "damaged-sweep.json")
        assert "best: top1 0.8000" in table
        assert outcomes.read(folder)["seed=0"].status == 0
        put(folder / "sweep.json", folder.name)
    page = tmp_path / "report.html"
    status, _, error = done(capsys, "report", *map(str, folders), f"--output={page}")
    assert status == 0
    for folder in folders:
        assert error.count(f"crescendo report: {folder}/sweep.json ") == 1


@pytest.mark.parametrize("name", ["folder", "flags", "status", "reason"])
def test_every_field_of_a_point_of_a_sweep(tmp_path, name):
    write(tmp_path / "seed=0", "--seed=0")
    entry = {"folder": '"seed=0"', "flags": '{"seed": "0"}', "status": "1", "reason": '"lost"'}
    for value in [*VALUES.values(), None]:
        entries = {**entry, name: value}
        if value is None:
            del entries[name]
        (tmp_path / "sweep.json").write_text(text({"points": f"[{text(entries)}]"}))
        for said in run_record.unread_sweeps([tmp_path]):
            assert f"sweep.json is damaged: points[0].{name} " in said
        assert len(run_record.find([tmp_path])[0]) == 1


def test_train_does_not_go_on_from_a_damaged_file(capsys, tmp_path):
    folder = tmp_path / "run"
    for file in ("flags.txt", "result.json", "lock"):
        for what in EVERY:
            shutil.rmtree(folder, ignore_errors=True)
            write(folder)
            put(folder / file, what)
            status, out, error = done(capsys, "train", "--epochs=2", f"--model_dir={folder}")
            if file == "lock" and (what in CONTENTS or what == "five_gigabytes"):
                assert (status, "is finished" in out) == (0, True)
                continue
            if (file, what) == ("flags.txt", "nothing"):
                assert "holds a run with other flags" in error
                continue
            assert status == 2, (file, what)
            two_lines(error, file if "holds a link" not in error else "run")
    shutil.rmtree(folder)
    write(folder)
    for what, content in results().items():
        (folder / "result.json").write_text(content)
        status, _, error = done(capsys, "train", "--epochs=2", f"--model_dir={folder}")
        assert status == 2
        two_lines(error, f"{folder}/result.json is damaged: {what.partition('-')[0]}")


DATA = {
    "examples": "100",
    "image_shape": "[28, 28, 3]",
    "classes": "2",
    "mean": "[1, 2, 3]",
    "std": "[1, 2, 3]",
    "class_names": '["a", "b"]',
}
ABOUT = {
    "checkpoint": '"x"',
    "update": "3",
    "image_shape": "[28, 28, 3]",
    "classes": "2",
    "versions": '{"keras": "3"}',
    "class_names": '["a", "b"]',
    "best": '{"top1": 0.5, "update": 2}',
}


@pytest.mark.parametrize(
    ("read", "file", "whole"),
    [
        (training_data.read, "training_data.json", DATA),
        (exports.about, "export.json", ABOUT),
        (result.ended, "result.json", RESULT),
    ],
)
def test_what_is_evaluated_or_exported_from(tmp_path, read, file, whole):
    (tmp_path / file).write_text(text({**whole, "of_a_newer_version": "[1]"}))
    assert read(tmp_path)
    for what in EVERY:
        put(tmp_path / file, what)
        with pytest.raises(UserError) as error:
            read(tmp_path)
        two_lines(str(error.value), f"{tmp_path}/{file} ")
        shutil.rmtree(tmp_path / file) if what == "a_folder" else (tmp_path / file).unlink()
    for name in whole:
        for what, value in VALUES.items():
            (tmp_path / file).write_text(text({**whole, name: value}))
            try:
                read(tmp_path)
            except UserError as error:
                two_lines(str(error), f"{tmp_path}/{file} is damaged: {name}")
            else:
                possible = (
                    "null",
                    "large",
                    "2^63",
                    "tiny",
                    "negative",
                    "an_object",
                    "a_text",
                    "a_list",
                )
                assert what in possible, (name, what)


@pytest.mark.parametrize("command", ["evaluate", "export"])
def test_flags_of_what_is_evaluated_or_exported(capsys, tmp_path, command):
    folder = tmp_path / "run"
    folder.mkdir()
    for what in EVERY:
        if what != "nothing":  # All defaults.
            put(folder / "flags.txt", what)
            status, _, error = done(capsys, command, f"--model_dir={folder}")
            assert status == 2
            two_lines(error, f"{folder}")
            shutil.rmtree(folder)
            folder.mkdir()
    kept = to_flagfile(parsed("--order_version=2", "--precision=float32"))
    (folder / "flags.txt").write_text(kept.replace("--epochs=16.0", f"--epochs={'9' * 400}x"))
    status, _, error = done(capsys, command, f"--model_dir={folder}")
    assert status == 2
    two_lines(error, f"{folder}/flags.txt is damaged: ", "epochs")
