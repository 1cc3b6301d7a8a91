"""--fork_from in the real program: a run goes on from another run's state with other flags."""

import json
import os
import re
import shutil
import signal

import numpy as np
import pytest
import tensorflow as tf

from tests.support import runs
from tests.support.configs import done
from tests.support.workers import finished, launched
from trainer.run_dir import lineage
from trainer.run_dir.checkpoint_names import found
from trainer.schedule import averaging

PARENT = [*runs.SHORT, *runs.CONSTANT, "--epochs=1", "--ema_decay=0.99"]
# The schedule of runs.SHORT, which is constant in its first epoch.
LONGER = ["--epochs=3", "--anneal=step", "--anneal_epochs=40%,70%", "--anneal_with=batch_size"]
# A smaller run, for tests that compare no losses.
SMALL = [*runs.SHORT, *runs.CONSTANT, "--train_split=train[:800]", "--eval_split=test[:200]"]
# From an epoch's beginning: layers that a small parent froze train from the third update on.
NEW = ["--unfreeze_epochs=0.05", "--fork_position=0", "--epochs=0.25"]


@pytest.fixture(scope="module")
def parent(tmp_path_factory):
    """A finished run of one epoch at a constant rate, with an average."""
    folder = tmp_path_factory.mktemp("fork") / "parent"
    runs.train(folder, *PARENT)
    return folder


@pytest.fixture(scope="module")
def by_hand(tmp_path_factory):
    """A run of the longer schedule from its beginning."""
    folder = tmp_path_factory.mktemp("fork") / "by hand"
    runs.train(folder, *runs.SHORT, "--ema_decay=0.99")
    return folder


def fork(parent, child, *flags):
    return runs.train(child, f"--fork_from={parent}@newest", "--deterministic", *flags)


def progress(folder):
    """The progress in a run's newest checkpoint."""
    reader = tf.train.load_checkpoint(str(runs.newest(folder) / "checkpoint"))
    return json.loads(reader.get_tensor("progress/.ATTRIBUTES/VARIABLE_VALUE"))


def check_that_layers_train(forked, child, start):
    """Checks that layers that the parent froze train, and where their statistics begin."""
    assert "the optimizer's slots are new, because --unfreeze_epochs was unset" in forked.stdout
    assert "keep their random weights" not in forked.stdout
    assert progress(child)["statistics_starts"] == {"0": start}


def kill(process):
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def test_a_longer_fork_is_the_run_that_is_written_by_hand(parent, by_hand, tmp_path):
    output = fork(parent, tmp_path / "child", *LONGER).stdout
    assert (
        f"begins with {parent.resolve()} at update 125, epoch 1.00: batch size 32, "
        "learning rate 0.1, momentum 0.9, noise scale 125\n"
    ) in output
    assert "by a factor" not in output
    child, whole = runs.result(tmp_path / "child"), runs.result(by_hand)
    for name in ("parameters_sha256", "averages_sha256", "updates", "position", "top1", "plain"):
        assert child[name] == whole[name], name
    for split in ("train", "eval", "eval_ema"):
        after = [p for p in runs.points(by_hand, split) if p["update"] > 125]
        assert runs.points(tmp_path / "child", split) == after


def test_killed_it_goes_on_exactly_and_needs_the_parent_no_longer(parent, by_hand, tmp_path):
    moved = tmp_path / "parent"
    shutil.copytree(parent, moved)
    child, flags = tmp_path / "child", [f"--fork_from={moved}@125", "--deterministic", *LONGER]
    for wanted in (child / lineage.FILE, child / "flags.txt", child / "checkpoints"):
        process = runs.started(child, *flags, runs.OFTEN)
        runs.wait_for(wanted.exists, process)
        kill(process)
    process = runs.started(child, *flags, runs.OFTEN)
    runs.wait_for(lambda: found(child / "checkpoints"), process)
    kill(process)
    shutil.rmtree(moved)
    assert "resumed at update" in runs.train(child, *flags).stdout
    assert runs.digest(child) == runs.digest(by_hand)
    assert f"{child} is finished" in runs.train(child, *flags).stdout
    error = runs.train(child, *runs.SHORT, status=2).stderr
    assert "holds a run with other flags: --fork_from: " in error


def test_other_flags_change_what_they_name_alone(parent, tmp_path, capsys):
    """Another optimizer, no average, and a larger batch at equal noise scale."""
    flags = ["--epochs=2", "--initial_batch_size=128", "--augment=none"]
    output = fork(parent, tmp_path / "large", *flags).stdout
    assert "batch size 32 → 128, learning rate 0.1 → 0.4, momentum 0.9, noise scale 125\n" in output
    assert [p["batch_size"] for p in runs.points(tmp_path / "large")] == [128] * 4
    assert runs.result(tmp_path / "large")["updates"] == 125 + 32
    status, out, _ = done(capsys, "plan", f"--fork_from={parent}@newest", *flags, "--format=json")
    plan = json.loads(out)
    assert (status, plan["total_updates"]) == (0, 32)
    assert plan["phases"][0]["start_update"] == 125
    assert plan["fork"]["before"]["noise_scale"] == pytest.approx(125, rel=1e-9)

    status, out, _ = done(capsys, "evaluate", f"--model_dir={tmp_path / 'large'}")
    assert (status, "top1" in out) == (0, True)

    flags = ["--epochs=2", "--optimizer=adamw", "--base_learning_rate=0.001"]
    output = fork(parent, tmp_path / "adamw", *flags).stdout
    assert "the optimizer's slots are new, because --optimizer was momentum and is adamw" in output
    assert "the noise scale changes by a factor of 0.001 at the fork" in output
    losses = [p["loss"] for p in runs.points(tmp_path / "adamw", "eval")]
    assert losses[-1] < [p["loss"] for p in runs.points(parent, "eval")][-1]


def parameters(run, group="weights"):
    reader = tf.train.load_checkpoint(runs.newest(run) / "checkpoint")
    names = [name for name in reader.get_variable_to_shape_map() if name.startswith(f"{group}/")]
    return [reader.get_tensor(name) for name in sorted(names)]


def test_layers_that_the_parent_froze_and_an_added_average_begin_at_the_fork(tmp_path):
    """The average's first update has all the weight, as in a new run; the next fork goes on."""
    first, child, grandchild = (tmp_path / name for name in ("first", "child", "grandchild"))
    runs.train(first, *SMALL, "--epochs=0.8", "--freeze=(?!dense)")
    frozen, position = progress(first), 20 * 32
    assert (frozen["position"], frozen["statistics_starts"]) == (position, {})
    output = fork(first, child, "--epochs=0.84", "--ema_decay=0.99", "--unfreeze_epochs=0.5")
    check_that_layers_train(output, child, position)
    found = runs.result(child)
    assert found["updates"] == runs.result(first)["updates"] + 1
    assert found["averages_sha256"] == found["parameters_sha256"]
    begun = lineage.read(child).average_start
    assert begun == runs.result(first)["position"]
    fork(child, grandchild, "--epochs=0.88")
    assert lineage.read(grandchild).average_start == begun
    assert progress(grandchild)["statistics_starts"] == {"0": position}
    # Of the last two parameters, by the formula of schedule/averaging.py for one more update.
    weight = averaging.update_weights(0.99, 32, 32, [64])[0]
    values = [parameters(run) for run in (child, grandchild)]
    for one, two, mean in zip(*values, parameters(grandchild, "averages"), strict=True):
        np.testing.assert_allclose(mean, one + weight * (two - one), rtol=1e-5, atol=1e-7)
    fork(first, tmp_path / "new", *NEW)
    assert progress(tmp_path / "new")["statistics_starts"] == {"0": 64}


def test_at_position_0_the_parameters_are_settled_and_the_clock_is_new(parent, tmp_path):
    flags = ["--fork_position=0", "--seed=5", "--epochs=0.08", "--base_learning_rate=1e-9"]
    output = fork(parent, tmp_path / "child", *flags).stdout
    result = runs.result(tmp_path / "child")
    assert (result["updates"], result["epochs"]) == (10, 0.08)
    last = runs.result(parent)
    # At this rate, only the moving statistics change, and little.
    assert result["plain"]["loss"] == pytest.approx(last["plain"]["loss"], rel=0.02)
    assert " 0.00       0       10     32" in output


def test_a_run_that_plateaus_ended_goes_on_with_pretrained_layers_that_it_froze(parent, tmp_path):
    """Statistics that come from another training have no beginning in the fork."""
    plateau = ["--anneal=plateau", "--patience=1", "--max_anneals=0", "--min_improvement=0.9"]
    short = [*SMALL, *plateau, "--epochs=3", "--eval_every_epochs=0.5"]
    runs.train(tmp_path / "parent", *short, "--freeze=(?!dense)", f"--init_from={parent}")
    assert runs.result(tmp_path / "parent")["epochs"] == 1
    assert progress(tmp_path / "parent")["statistics_starts"] == {}
    again = ["--max_anneals=1", "--unfreeze_epochs=0.1"]
    output = fork(tmp_path / "parent", tmp_path / "child", *again)
    check_that_layers_train(output, tmp_path / "child", None)
    assert runs.result(tmp_path / "child")["epochs"] == 2
    fork(tmp_path / "parent", tmp_path / "new", *NEW)
    assert progress(tmp_path / "new")["statistics_starts"] == {"0": None}


def test_two_workers_begin_with_the_state_that_the_chief_reads(parent, by_hand, tmp_path):
    child = tmp_path / "child"
    flags = [f"--fork_from={parent}@newest", "--deterministic", "--precision=float32", *LONGER]
    finished(launched(2, child, *flags))
    ours, whole = (runs.points(each, "eval") for each in (child, by_hand))
    assert ours[-1]["loss"] == pytest.approx(whole[-1]["loss"], rel=1e-3)
    assert runs.result(child)["updates"] == runs.result(by_hand)["updates"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model=wide_resnet_10_1"], "--model=wide_resnet_10_1, but .* has --model=tests.suppo"),
        (["--seed=1"], "the order of the examples differs: --seed 0 → 1"),
        (["--sampling=balanced"], "differs: --sampling shuffled → balanced"),
        (["--train_split=train[:3750]"], "the number of examples 4000 → 3750"),
        (["--epochs=1"], "is at epoch 1.00, and the run ends at epoch 1."),
        (["--anneal=range_test"], "cannot go on with or from a range test"),
        (["--init_from=imagenet"], "--init_from=imagenet both name the first parameters"),
    ],
)
def test_a_fork_that_is_impossible_is_refused_by_name(parent, capsys, flags, message):
    status, _, err = done(capsys, "plan", f"--fork_from={parent}@newest", "--epochs=3", *flags)
    assert status == 2
    assert len(err.strip().splitlines()) <= 2
    assert re.search(message, err), err


@pytest.mark.parametrize(
    ("origin", "message"),
    [
        ("", "does not name a checkpoint.\nWrite {parent}@UPDATE, "),
        ("@last", "does not name a checkpoint."),
        ("@7", "--fork_from={parent}@7 does not exist: checkpoints of updates 125 exist"),
        ("/nothing@newest", "is not a run directory, because it has no flags.txt"),
    ],
)
def test_an_origin_that_does_not_exist_is_named(parent, capsys, origin, message):
    status, _, err = done(capsys, "plan", f"--fork_from={parent}{origin}", "--epochs=3")
    assert status == 2
    assert message.replace("{parent}", str(parent)) in err


def test_a_damaged_checkpoint_is_refused_without_a_flag_that_train_lacks(by_hand, tmp_path, capsys):
    shutil.copytree(by_hand, tmp_path / "run")
    (data,) = runs.newest(tmp_path / "run").glob("*.data-*")
    data.write_bytes(data.read_bytes()[:100])
    origin = f"--fork_from={tmp_path / 'run'}@{runs.result(tmp_path / 'run')['updates']}"
    status, _, err = done(capsys, "plan", origin, "--epochs=4")
    assert status == 2
    assert re.search(r"is damaged: .*\.\nName another: checkpoints of updates .* exist\.", err), err


def test_a_run_in_a_bucket_and_a_position_without_a_run_are_refused(capsys):
    status, _, err = done(capsys, "plan", "--fork_from=gs://bucket/runs/a@newest")
    assert (status, "fetch --model_dir=gs://bucket/runs/a --local_dir=" in err) == (2, True)
    status, _, err = done(capsys, "plan", "--fork_position=0")
    assert (status, "--fork_position=0 has no effect without --fork_from" in err) == (2, True)
