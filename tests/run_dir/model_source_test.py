import dataclasses

import pytest

from tests.support.configs import parsed
from trainer.config.flagfile import to_flagfile
from trainer.errors import UserError
from trainer.run_dir import model_source


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    (folder / "checkpoints" / "000000007").mkdir(parents=True)
    asked = parsed(f"--model_dir={folder}", "--epochs=2", "--virtual_devices=4", "--deterministic")
    (folder / "flags.txt").write_text(to_flagfile(asked))
    return folder


def test_a_text_names_the_url_of_a_run_and_not_its_copy(run):
    local = dataclasses.replace(parsed("--model_dir=gs://bucket/runs/x/"), model_dir=str(run))
    text = f"takes {run}/checkpoints/000000007"
    assert model_source.as_asked(local, text) == "takes gs://bucket/runs/x/checkpoints/000000007"
    assert model_source.as_asked(parsed(f"--model_dir={run}"), text) == text
    assert model_source.as_asked(parsed(), text) == text


@pytest.fixture
def export(tmp_path):
    folder = tmp_path / "export"
    folder.mkdir()
    (folder / "flags.txt").write_text("# by hand\n\n--epochs=2.0\n--nodeterministic\n")
    (folder / "export.json").touch()
    return folder


@pytest.mark.parametrize(
    "flags", [["--model_dir={0}"], ["--checkpoint={0}/checkpoints/000000007"]], ids=str
)
def test_kept_flags_of_a_run_leave_out_those_of_its_machine(run, flags):
    asked = parsed(*(flag.format(run) for flag in flags))
    assert model_source.run(asked) == model_source.run_or_export(asked) == run
    for command in ("evaluate", "export"):
        kept = model_source.kept_flags(command, asked)
        assert {"--epochs=2.0", "--deterministic", "--model=wide_resnet_10_1"} <= set(kept)
        left_out = ("--model_dir", "--virtual_devices", "--strategy", "--checkpoint=")
        assert not any(flag.startswith(left_out) for flag in kept)
        # The user's flags come last and override the kept ones.
        again = parsed(*kept, "--epochs=3", f"--model_dir={run}")
        assert (again.epochs, again.deterministic, again.virtual_devices) == (3, True, None)


@pytest.mark.parametrize("precision", ["bfloat16", "float32", None])
@pytest.mark.parametrize("typed", [[], ["--precision=auto"]])
def test_a_run_keeps_its_precision_and_one_that_has_none_is_in_float32(run, precision, typed):
    lines = to_flagfile(parsed("--precision=bfloat16")).splitlines(keepends=True)
    own = [] if precision is None else [f"--precision={precision}\n"]
    (run / "flags.txt").write_text("".join([*own, *(e for e in lines if "precision" not in e)]))
    asked = [f"--model_dir={run}", *typed]
    found = model_source.with_kept_flags("evaluate", parsed(*asked, command="evaluate"), asked)
    assert found.precision == (precision or "float32")
    pictures = [*asked, "--", "-odd.jpg"]
    found = model_source.with_kept_flags("predict", parsed(*pictures, command="predict"), pictures)
    assert (found.precision, found.images) == (precision or "float32", ("-odd.jpg",))
    others = [*asked, "--precision=bfloat16"]
    found = model_source.with_kept_flags("evaluate", parsed(*others, command="evaluate"), others)
    assert found.precision == "bfloat16"


def test_a_tpu_run_keeps_its_precision_but_not_its_strategy(run):
    on_tpu = ["--strategy=tpu", "--tpu=v5", "--tpu_zone=us-west4-a", "--tpu_project=mine"]
    made = parsed(*on_tpu, "--precision=bfloat16")
    (run / "flags.txt").write_text(to_flagfile(made))
    kept = model_source.kept_flags("evaluate", parsed(f"--model_dir={run}"))
    again = parsed(*kept, f"--model_dir={run}")
    assert (again.strategy, again.tpu, again.precision) == ("auto", None, "bfloat16")


def test_a_folder_without_flags_is_not_an_export(export):
    (export / "flags.txt").unlink()
    with pytest.raises(UserError, match=r"is not an export: it lacks export.json or flags.txt"):
        model_source.kept_flags("evaluate", parsed(f"--export_dir={export}"))


def test_other_commands_have_no_kept_flags():
    assert model_source.kept_flags("train", parsed("--model_dir=nowhere")) == []


@pytest.mark.parametrize("file", ["", "/model.keras"])
def test_kept_flags_of_an_export_are_its_flags(export, file):
    asked = parsed(f"--export_dir={export}{file}")
    assert model_source.run_or_export(asked) == export
    kept = model_source.kept_flags("evaluate", asked)
    oldest = ["--order_version=1", "--precision=float32"]
    assert kept == [*oldest, "--epochs=2.0", "--nodeterministic"]


def test_an_export_may_have_any_name(export):
    named = export.rename(export.with_name("x.keras"))
    assert model_source.run_or_export(parsed(f"--export_dir={named}")) == named


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--model_dir is missing"),
        (["--checkpoint=best"], "--model_dir is missing"),
        (["--model_dir={0}/nowhere"], "nowhere is not a run directory"),
        (["--checkpoint={0}/x/checkpoints/000000001"], "x is not a run directory"),
        (["--model_dir={0}/export"], "export is an export: use `evaluate --export_dir="),
        (["--export_dir={0}/run"], "run is not an export"),
        (["--export_dir={0}/nowhere.keras"], "nowhere.keras is not an export"),
        (["--export_dir={0}/export", "--model_dir={0}/run"], "excludes"),
        (["--export_dir={0}/export", "--checkpoint=best"], "excludes"),
    ],
    ids=str,
)
def test_flags_that_do_not_name_one_run_or_export_are_rejected(
    run, export, tmp_path, flags, message
):
    with pytest.raises(UserError, match=message) as error:
        model_source.run_or_export(parsed(*(flag.format(tmp_path) for flag in flags)))
    assert len(str(error.value).splitlines()) <= 2


@pytest.mark.parametrize("line", ["--epoch=2.0", "epochs=2.0", "--flagfile=/etc/passwd", "\0"])
def test_a_line_that_is_not_a_flag_is_rejected(run, line):
    with open(run / "flags.txt", "a") as file:
        file.write(f"{line}\n")
    with pytest.raises(UserError, match=r"flags.txt has a line that is not a flag"):
        model_source.kept_flags("evaluate", parsed(f"--model_dir={run}"))
