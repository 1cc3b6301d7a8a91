"""Sweeps over tiny runs in processes of their own, and what is said of wrong ones."""

import json
import os

import pytest

from tests.support.configs import done
from tests.support.runs import result, started, train
from trainer.commands import sweep as sweep_command
from trainer.config import command_line
from trainer.sweep import grid
from trainer.sweep.sweep_folder import SweepFolder
from trainer.training.precision import of_this_machine

TINY = [
    "--model=tests.support.models:tiny",
    "--train_split=train[:1000]",
    "--eval_split=test[:200]",
    "--epochs=1",
    "--deterministic",
]
# For tests of what does not depend on the model: this step is traced in half the time.
LINEAR = [*TINY, "--model=tests.support.models:reshaping"]
GOOD, DIVERGES, WRONG = (
    "tests.support.models:tiny/0.1",
    "tests.support.models:tiny/1e15",
    "tests.support.models:nothing/0.1",
)
MIXED = f"--sweep=model/base_learning_rate={WRONG},{DIVERGES},{GOOD};seed=0"
NAMES = [
    "model=tests.support.models-nothing,base_learning_rate=0.1,seed=0",
    "model=tests.support.models-tiny,base_learning_rate=1e15,seed=0",
    "model=tests.support.models-tiny,base_learning_rate=0.1,seed=0",
]


def sweep(folder, *arguments, flags=TINY, status=0):
    return train(folder, *flags, *arguments, status=status, name="sweep")


def kept(folder):
    return json.loads((folder / "sweep.json").read_text())["points"]


def test_all_points_get_the_precision_that_the_first_machine_chose(tmp_path):
    folder = tmp_path / "sweep"
    auto = ["--nodeterministic", "--precision=auto", "--micro_batch_size=128"]

    def precision(seed):
        lines = (folder / f"seed={seed}" / "flags.txt").read_text().splitlines()
        (found,) = (line.partition("=")[2] for line in lines if line.startswith("--precision="))
        return found

    first = sweep(folder, *auto, "--sweep=seed=0,1", "--sweep_parallel=2", flags=LINEAR)
    chosen = json.loads((folder / "sweep.json").read_text())["precision"]
    assert f"new points compute in {chosen}, because" in first.stdout
    assert {precision(0), precision(1)} == {chosen} == {of_this_machine().precision}
    # The sweep goes on where the hardware is another: the record counts.
    other = {"float32": "bfloat16", "bfloat16": "float32"}[chosen]
    content = (folder / "sweep.json").read_text()
    (folder / "sweep.json").write_text(content.replace(f'"{chosen}"', f'"{other}"', 1))
    later = sweep(folder, *auto, "--sweep=seed=0,1,2", flags=LINEAR)
    assert (
        f"new points compute in {other}, because the sweep began with this precision"
        in later.stdout
    )
    assert [precision(seed) for seed in range(3)] == [chosen, chosen, other]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """A point that is wrong only when it trains, one that diverges, and one that ends."""
    folder = tmp_path_factory.mktemp("sweeps") / "mixed"
    return folder, sweep(folder, MIXED, "--sweep_parallel=2", status=2)


def test_failed_points_leave_their_reason_and_the_others_finish(mixed):
    folder, called = mixed
    wrong, diverged, good = kept(folder)
    assert [point["folder"] for point in (wrong, diverged, good)] == NAMES
    assert [point["status"] for point in (wrong, diverged, good)] == [2, 3, 0]
    swept = {"model": "tests.support.models:tiny", "base_learning_rate": "0.1", "seed": "0"}
    assert good["flags"] == swept
    assert "no function 'nothing'" in wrong["reason"]
    first, second = diverged["reason"].splitlines()
    assert "with learning rate 1e+15 and batch size 128" in first
    assert "lower learning rate" in second
    assert good["reason"] is None
    top1 = result(folder / NAMES[2])["top1"]
    table = called.stdout.split("\n\n")[1].splitlines()
    assert table[3].split()[:5] == ["tests.support.models:tiny", "0.1", "0", "0", f"{top1:.4f}"]
    assert (
        f"best: model=tests.support.models:tiny, base_learning_rate=0.1: top1 {top1:.4f}"
        in called.stdout
    )
    for reason in (wrong["reason"], diverged["reason"]):
        assert all(f"  {line}" in called.stdout for line in reason.splitlines())


def test_a_second_call_repeats_nothing(mixed):
    folder, _ = mixed
    before = [os.stat(folder / name / "output.txt").st_size for name in NAMES]
    again = sweep(folder, MIXED, "--format=json", status=2)
    assert [os.stat(folder / name / "output.txt").st_size for name in NAMES] == before
    assert "1 of 3 points are finished" in again.stderr
    assert again.stderr.count("failed before") == 2
    found = json.loads(again.stdout)
    assert [point["status"] for point in found["points"]] == [2, 3, 0]
    ended = result(folder / NAMES[2])
    assert found["points"][2]["results"] == {
        name: ended[name] for name in ("top1", "loss", "updates", "seconds")
    }
    assert [cell["n"] for cell in found["cells"]] == [0, 0, 1]
    assert found["best"]["mean"]["top1"] == ended["top1"]


def test_failed_points_are_retried_when_asked(mixed):
    folder, _ = mixed
    before = [os.stat(folder / name / "output.txt").st_size for name in NAMES]
    again = sweep(folder, MIXED, "--sweep_retry", status=2)
    after = [os.stat(folder / name / "output.txt").st_size for name in NAMES]
    assert [a > b for a, b in zip(after, before, strict=True)] == [True, True, False]
    assert [point["status"] for point in kept(folder)] == [2, 3, 0]
    assert "starts" in again.stdout


def test_two_parts_in_two_processes_make_one_sweep(tmp_path):
    folder = tmp_path / "sweep"
    seeds = "--sweep=seed=0,1,2"
    parts = [started(folder, *LINEAR, seeds, f"--sweep_part={i}/2", name="sweep") for i in (1, 2)]
    said = [part.communicate(timeout=300) for part in parts]
    assert [part.returncode for part in parts] == [0, 0], said
    assert [
        [line.split(": ")[0] for line in out.splitlines() if line.endswith(": starts")]
        for out, _ in said
    ] == [["[1/3] seed=0", "[3/3] seed=2"], ["[2/3] seed=1"]]
    assert [point["folder"] for point in kept(folder)] == ["seed=0", "seed=1", "seed=2"]
    assert [point["status"] for point in kept(folder)] == [0, 0, 0]
    whole = sweep(folder, seeds, flags=LINEAR)
    assert "3 of 3 points are finished" in whole.stdout
    assert "starts" not in whole.stdout
    assert "3 of 3" in whole.stdout.split("\n\n")[2]


def test_two_sweeps_without_parts_share_the_points_out(tmp_path):
    folder = tmp_path / "sweep"
    both = [started(folder, *LINEAR, "--sweep=seed=0,1", name="sweep") for _ in range(2)]
    said = [each.communicate(timeout=300) for each in both]
    assert [each.returncode for each in both] == [0, 0], said
    assert sum(out.count(": starts") for out, _ in said) == 2
    assert [point["status"] for point in kept(folder)] == [0, 0]


def test_a_run_is_the_same_in_a_sweep_as_by_itself(mixed, tmp_path):
    """Compares losses to 1e-3: the runs have other numbers of cores, whose threads divide sums."""
    folder, _ = mixed
    alone = tmp_path / "alone"
    train(alone, *TINY)
    swept = folder / NAMES[2]
    assert result(alone)["updates"] == result(swept)["updates"]
    assert result(alone)["loss"] == pytest.approx(result(swept)["loss"], rel=1e-3)
    flags = {(path / "flags.txt").read_text().replace(str(path), "") for path in (alone, swept)}
    assert len(flags) == 1


def refused(capsys, folder, *arguments):
    status, out, error = done(capsys, "sweep", *arguments, f"--model_dir={folder}")
    assert (status, out) == (2, "")
    return error


@pytest.mark.parametrize(
    ("flags", "fitting", "wrong"),
    [
        (["--mixup_alpha=0.4"], "augment={flip,mixup},{mixup,cutmix}", "augment=none"),
        (["--erasing_area=0.1,0.2"], "augment={flip,erasing}", "augment=strong"),
        (["--drop_path=0.1"], "model=resnet_50,vit_ti_7", "model=vgg_16"),
        (["--sigmoid_reduction=mean"], "loss=sigmoid", "loss=softmax"),
        (["--augment=mixup", "--ghost_batch_size=1"], "ghost_batch_size=2,4", "ghost_batch_size=1"),
        (["--class_weights=balanced", "--sampling=balanced"], "sampling=shuffled", "seed=1"),
    ],
)
def test_flags_must_fit_the_points_and_not_the_defaults(tmp_path, flags, fitting, wrong):
    for text, count in ((fitting, 0), (wrong, 1)):
        asked = command_line.parse("sweep", [*flags, f"--sweep={text}"])
        points = grid.parse(text)
        runs, found, _ = sweep_command.checked(asked, points, SweepFolder(tmp_path))
        assert (len(runs), len(found)) == (len(points) - count, count)


def test_flags_of_plan_in_a_swept_flagfile_change_nothing(tmp_path):
    recipe = tmp_path / "a.flags"
    recipe.write_text("--plan_replicas=3\n--plan_hosts=3\n--workers=1:4\n--epochs=1\n")
    points = grid.parse(f"flagfile={recipe}")
    asked = command_line.parse("sweep", [])
    runs, found, _ = sweep_command.checked(asked, points, SweepFolder(tmp_path))
    assert (len(runs), found) == (1, {})
    assert not any(flag.startswith(("--plan_", "--workers")) for flag in runs[0].flags)


def test_every_wrong_point_is_reported_before_anything_starts(capsys, tmp_path):
    error = refused(
        capsys,
        tmp_path / "sweep",
        "--sweep=initial_batch_size/max_batch_size=100/1000,128/1280,640/64;augment=none,heavy",
    )
    lines = error.splitlines()
    assert lines[0] == "crescendo sweep: 5 of 6 points are wrong; nothing was started."
    first = "initial_batch_size=100,max_batch_size=1000,augment=none"
    after = lines[lines.index(first) + 1 :]
    refusal = "  initial batch size 100 is not a multiple of 1 replica × ghost batch 32 = 32."
    assert refusal in after
    assert "  Use a batch of 96 or 128." in after
    assert any("--max_batch_size=64 is below the initial batch size 640" in line for line in after)
    # One message for the three.
    assert sum(line.endswith("augment=heavy") for line in lines) == 3
    assert sum("--augment=heavy" in line for line in lines) == 1
    assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sweep=sead=0,1"], "Unknown command line flag 'sead'"),
        (["--sweep=model_dir=a,b"], "--model_dir cannot be swept"),
        (["--sweep=format=json,table"], "--format cannot be swept"),
        (["--sweep=strategy=multi_worker,auto"], "give each machine a --sweep_shard"),
        (["--sweep=flagfile=flags/absent.flags"], "flags/absent.flags"),
        (["--sweep=dataset=mnist,image_folder:/nowhere"], "/nowhere"),
        (["--sweep=seed=0,1", "--sweep_part=3/2"], "--sweep_shard=3/2"),
        (["--sweep=seed=0,1", "--sweep_parallel=0"], "--sweep_parallel=0: must be above 0"),
        ([], "--sweep is missing"),
    ],
)
def test_a_wrong_sweep(capsys, tmp_path, arguments, message):
    assert message in refused(capsys, tmp_path / "sweep", *arguments)
    assert not (tmp_path / "sweep").exists()


def test_without_a_folder(capsys):
    status, _, error = done(capsys, "sweep", "--sweep=seed=0")
    assert (status, error) == (
        2,
        "crescendo sweep: --model_dir is missing: name the sweep's folder, as in runs/sweep.\n",
    )


def test_a_folder_that_is_no_sweep(capsys, mixed, tmp_path):
    run = mixed[0] / NAMES[2]
    assert "exists and is not the folder of a sweep" in refused(capsys, run, "--sweep=seed=0,1")
    assert not (run / "sweep.json").exists()


def test_other_flags_than_the_finished_points_have(capsys, mixed):
    error = refused(capsys, mixed[0], *TINY, MIXED, "--epochs=2")
    assert "2 of 3 points are wrong" in error
    assert "--epochs: 1.0 → 2.0" in error
    assert grid.folder({"model": "tests.support.models:tiny", "base_learning_rate": "0.1"}) in error


@pytest.mark.parametrize("content", ["{", '{"top1": 0.5, "updates": 3}'])
def test_a_damaged_result_is_named_and_left_out(capsys, tmp_path, content):
    point = tmp_path / "sweep" / "seed=0"
    point.mkdir(parents=True)
    (tmp_path / "sweep" / "sweep.json").write_text('{"points": []}')
    (point / "flags.txt").write_text("")
    (point / "result.json").write_text(content)
    status, out, error = done(
        capsys, "sweep", "--sweep=seed=0", f"--model_dir={tmp_path / 'sweep'}"
    )
    assert (status, error) == (2, "")
    first, *_, reason, remedy = out.splitlines()
    assert first.startswith(f"seed=0 is left out: {point}/result.json is damaged: ")
    assert reason.startswith(f"  {point}/result.json is damaged: ")
    assert remedy == "  Delete it: the same command then writes it again from the checkpoint."
    assert (point / "result.json").read_text() == content
