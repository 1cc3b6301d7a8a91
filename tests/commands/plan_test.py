import json
import subprocess
import sys

import pytest

from tests.configs import parsed
from trainer.commands import plan
from trainer.config import UserError

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
    with pytest.raises(UserError, match="beans's 'train' has is not known here: pass --train_ex"):
        plan.run(parsed(*unknown))
    assert plan.run(parsed(*unknown, "--train_examples=12345")) == 0
    assert "of 12,345 examples" in capsys.readouterr().out


def test_tensorflow_is_not_imported():
    code = (
        "import sys; from trainer.main import main; "
        f"status = main(['crescendo', 'plan', '{RECIPE}', '--train_split=train[:90%]']); "
        "sys.exit(status or 'tensorflow' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
