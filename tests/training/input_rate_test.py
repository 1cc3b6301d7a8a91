import json

import pytest

from tests.support.configs import done, parsed
from tests.support.encoded_folders import write_folder
from trainer.errors import UserError
from trainer.schedule.plan import Phase
from trainer.training import input_rate

PHASE = Phase(0.0, 0, 1, 32, 0.1, 0.9, 1.0, micro_batch_size=32, accumulation=1)
SIZES = ["--image_size=8", "--augment=imagenet", "--initial_batch_size=32"]


def plan(capsys, rate, *flags):
    """Returns the JSON of a plan whose replica trains on `rate` examples a second."""
    asked = ["--plan_replicas=1", f"--plan_examples_per_second={rate}", "--format=json"]
    status, out, error = done(capsys, "plan", *SIZES, *asked, *flags)
    assert status == 0, error
    return json.loads(out)


def test_a_plan_compares_what_a_host_needs_with_what_this_machine_decodes(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(input_rate, "_WARM_UP", 0.1)
    monkeypatch.setattr(input_rate, "_SECONDS", 0.2)
    folder = f"--dataset={write_folder(tmp_path, 64, {3: b'not an image'})}"
    slow, fast = (plan(capsys, rate, folder) for rate in (0.5, 1e9))
    assert slow["host_images_per_second"] == pytest.approx(0.5)
    assert fast["host_images_per_second"] == pytest.approx(1e9)
    for found in (slow, fast):
        assert 1 < found["input_images_per_second"] < 1e6
        assert f"read and decode {found['input_images_per_second']:,.0f}" in found["notes"][-1]
    assert "wait for input" not in slow["notes"][-1]
    assert " such cores would decode as many" in fast["notes"][-1]


@pytest.mark.parametrize("of_set", ["--dataset=image_folder:nowhere", "--dataset=imagenet2012"])
def test_images_that_are_elsewhere_are_not_measured(of_set, capsys, tmp_path):
    elsewhere = [of_set, "--train_examples=5000", f"--data_dir={tmp_path}"]
    found = plan(capsys, 100.0, *elsewhere)
    assert found["host_images_per_second"] == pytest.approx(100)
    assert "input_images_per_second" not in found
    assert "how many it can decode was not measured: " in found["notes"][-1]


def test_a_set_that_is_not_indexed_is_refused():
    with pytest.raises(UserError, match="fashion_mnist is not prepared as ArrayRecord"):
        input_rate.measure(parsed(), PHASE)


def test_images_of_which_none_can_be_decoded_are_not_measured(tmp_path, capsys):
    folder = write_folder(tmp_path, 32, dict.fromkeys(range(32), b"not an image"))
    # Each image of the batches that are made at once is replaced 101 times.
    sizes = ["--ghost_batch_size=8", "--initial_batch_size=8", "--max_batch_size=8"]
    found = plan(capsys, 100.0, f"--dataset={folder}", *sizes)
    assert "input_images_per_second" not in found
    assert "was not measured: " in found["notes"][-1]
    assert "101 examples in a row" in found["notes"][-1]


@pytest.mark.parametrize(
    "flags", [["--augment=imagenet,mixup"], ["--augment=none", "--image_sizes=8@0%,16@50%"]]
)
def test_the_pipeline_is_that_of_the_fastest_phase(tmp_path, capsys, monkeypatch, flags):
    """Ghost batches of 48 do not divide the default micro-batch of 128."""
    monkeypatch.setattr(input_rate, "_WARM_UP", 0.1)
    monkeypatch.setattr(input_rate, "_SECONDS", 0.1)
    sizes = ["--ghost_batch_size=48", "--initial_batch_size=48", "--max_batch_size=48"]
    flags = [f"--dataset={write_folder(tmp_path, 64)}", *sizes, *flags]
    assert plan(capsys, 100.0, *flags)["input_images_per_second"] > 0


def test_images_that_are_decoded_once_are_not_measured(capsys):
    found = plan(capsys, 1e9, "--augment=medium")
    assert "host_images_per_second" not in found
