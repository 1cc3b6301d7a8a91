import json
import subprocess
import sys

import pytest

from tests.support.configs import done, parsed
from trainer.commands import plan
from trainer.errors import UserError

RECIPE = "--flagfile=flags/cifar10_wrn_16_4_grow.flags"


def test_json(capsys):
    assert plan.run(parsed(RECIPE, "--format=json")) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["examples"] == 50_000
    assert found["total_updates"] == sum(phase["updates"] for phase in found["phases"])
    assert found["phases"][1] == {
        "start_epoch": 23438 * 128 / 50_000,
        "start_update": 23438,
        "updates": 4688,
        "batch_size": 640,
        "learning_rate": 0.1,
        "momentum": 0.9,
        "noise_scale": pytest.approx(0.1 * 50_000 / (640 * 0.1)),
        "micro_batch_size": 128,
        "accumulation": 5,
    }


def test_the_layout_is_that_of_the_devices(capsys):
    plan.run(
        parsed(
            RECIPE,
            "--format=json",
            "--initial_batch_size=640",
            "--max_batch_size=5120",
            "--virtual_devices=5",
        )
    )
    first = json.loads(capsys.readouterr().out)["phases"][0]
    assert (first["micro_batch_size"], first["accumulation"]) == (128, 1)


def test_a_clipped_run_is_not_said_to_be_invariant(capsys):
    for clip in ([], ["--clip_norm=1"]):
        plan.run(parsed(RECIPE, *clip))
        said = "--clip_norm=1 depends on the batch size" in capsys.readouterr().out
        assert said == bool(clip)


def test_one_update_is_not_several(capsys):
    plan.run(parsed("--train_examples=1280", "--epochs=0.05"))
    assert "\n1 update over 0.05 epochs of 1,280 examples\n" in capsys.readouterr().out


def test_table_and_plot(capsys, tmp_path):
    plan.run(parsed(RECIPE, f"--plot={tmp_path}/plan.png"))
    assert "29,142 updates over 200 epochs of 50,000 examples" in capsys.readouterr().out
    assert (tmp_path / "plan.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["nowhere/plan.png", "plan.nothing"])
def test_a_plot_that_cannot_be_written(tmp_path, name):
    with pytest.raises(UserError, match="cannot be written"):
        plan.run(parsed(RECIPE, f"--plot={tmp_path}/{name}"))


def test_examples_that_are_not_known_are_asked_for(tmp_path, capsys):
    unknown = ("--dataset=beans", f"--data_dir={tmp_path}")
    with pytest.raises(UserError, match="beans's 'train' is not known here: pass --train_ex"):
        plan.run(parsed(*unknown))
    assert plan.run(parsed(*unknown, "--train_examples=12345")) == 0
    assert "of 12,345 examples" in capsys.readouterr().out


def test_a_model_that_does_not_exist_is_refused(capsys):
    """`planned` refuses it, which sweeps and the Python API call too."""
    with pytest.raises(UserError, match="--model=wide_resnet_16 is not a model; did you mean"):
        plan.planned(parsed(RECIPE, "--model=wide_resnet_16"))
    with pytest.raises(UserError, match="depth 11 does not exist"):
        plan.planned(parsed(RECIPE, "--model=wide_resnet_11_1"))
    for model in ("ResNet50", "inception_resnet_v2", "own:net"):
        assert plan.run(parsed(RECIPE, f"--model={model}")) == 0


def test_tensorflow_is_not_imported():
    code = (
        "import sys; from trainer.main import main; "
        f"status = main(['crescendo', 'plan', '{RECIPE}', '--train_split=train[:90%]', "
        "'--model_dir=runs/none', '--plan_replicas=1']); "
        "sys.exit(status or 'tensorflow' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


# Ghost batches of 32, and 60,000 examples.
FASHION = "--flagfile=flags/fashion_mnist_grow.flags"


def test_one_epoch_is_not_plural(capsys):
    assert plan.run(parsed(FASHION, "--epochs=1")) == 0
    assert "updates over 1 epoch of 60,000 examples" in capsys.readouterr().out


def test_the_end_of_one_call_is_not_the_end_of_the_plan(capsys):
    assert plan.run(parsed("--stop_at_epoch=1", "--epochs=2", command="plan")) == 0
    out, error = capsys.readouterr()
    assert "937 updates over 2 epochs" in out or "938 updates over 2 epochs" in out
    assert "--stop_at_epoch=1 is ignored: the plan covers the whole run" in error


def test_what_trains_at_which_rate_is_printed_in_the_table_and_in_json(capsys):
    flags = ["--layer_decay=0.1", "--train_split=train[:500]", "--initial_batch_size=32"]
    flags += ["--freeze=group1", "--unfreeze_epochs=2"]
    status, out, _ = done(capsys, "plan", *flags)
    assert status == 0
    frozen = "layers that match group1 are frozen up to epoch 2"
    assert f"{frozen}; the step is then traced once more\n" in out
    assert "factor on the learning rate, by --layer_decay=0.1:" in out
    assert "  1        logits\nwarning: 2 of 6 groups have a factor below 0.001" in out
    _, text, _ = done(capsys, "plan", *flags, "--format=json")
    notes = json.loads(text)["notes"]
    assert "\n".join(notes) in out
    assert len(notes) == 1 + 1 + 6 + 1


def test_layers_are_grouped_without_reading_an_image(tmp_path, capsys):
    """Layers are known of pictures that are elsewhere, or that nobody can decode."""
    for name in ("cat", "dog"):
        (tmp_path / "train" / name).mkdir(parents=True)
        for number in range(20):
            (tmp_path / "train" / name / f"{number}.jpg").write_bytes(b"not a picture")
    flags = ["--layer_decay=0.5", "--model=wide_resnet_10_1", "--initial_batch_size=2"]
    flags += ["--ghost_batch_size=2", "--image_size=32"]
    status, out, _ = done(capsys, "plan", *flags, f"--dataset=image_folder:{tmp_path}")
    assert status == 0
    assert "  0.5      last_norm\n  1        logits\n" in out
    few = ["--num_classes=1", f"--dataset=image_folder:{tmp_path}"]
    status, _, error = done(capsys, "plan", *flags, *few)
    assert status == 2
    assert "--num_classes=1 is below the 2 classes of image_folder" in error
    elsewhere = [f"--dataset=image_folder:{tmp_path}/elsewhere", "--train_examples=40"]
    assert done(capsys, "plan", *flags, *elsewhere)[:2] == (0, out)
    status, _, error = done(capsys, "plan", *flags[:-1], *elsewhere)
    assert status == 2
    assert "give --image_size=N" in error


def test_durations_with_several_numbers_of_workers_are_the_last_lines(capsys):
    """The duration of one worker would read as that of the run."""
    speed = ["--plan_examples_per_second=1000", "--plan_parameters=1000"]
    assert plan.run(parsed(FASHION, *speed, "--workers=1:2")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "the table above is of one worker; with --workers:" in lines
    assert lines[-1].startswith("always 2")
    assert plan.run(parsed(FASHION, *speed, "--workers=1:2", "--format=json")) == 0
    found = json.loads(capsys.readouterr().out)
    assert "workers" in found
    assert "notes" not in found  # The table of workers is not a note.
