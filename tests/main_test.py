"""Refusals of wrong input: two lines at most, the value and the remedy, status 2."""

import os
import select
import signal
import subprocess
import sys

import pytest

from tests.support.configs import done
from tests.support.runs import SHORT, started, wait_for

WRONG = [
    (["--epoch=2"], "Unknown command line flag 'epoch'. Did you mean: epochs ?"),
    (
        ["trian"],
        "unknown command 'trian': did you mean train?",
    ),
    (["help", "plna"], "unknown command 'plna': did you mean plan?"),
    (["--epochs=0"], "flag --epochs=0.0: must be above 0"),
    (["--dataset=fashion_mnits"], "fashion_mnist"),
    (["--model=wide_resnet_11_1"], "10"),
    (["--model=ResNet51"], "ResNet50"),
    (["--model=tests.support.models:nothing"], "tests.support.models:nothing"),
    (["--model=tests.support.models:softmax"], "logits"),
    (["--model=tests.absent:tiny"], "tests.absent"),
    (["--train_split=trian"], "trian"),
    (["--num_classes=5"], "--num_classes=5 is below the 10 classes"),
    (["--train_examples=5"], "fashion_mnist's 'train' has 60000"),
    (["--initial_batch_size=100"], "batch of 96 or 128"),
    (["--max_batch_size=64"], "64 is below the initial batch size 128"),
    (["--anneal=step", "--anneal_epochs=60%,30%"], "out of order at 30%"),
    (["--anneal=step", "--anneal_epochs=20"], "not inside the run of 16 epochs"),
    (
        ["--initial_batch_size=640", "--initial_learning_rate=0.5", "--momentum=0.98"],
        "--initial_learning_rate=0.1, or",
    ),
]


@pytest.mark.usefixtures("fashion_mnist")
@pytest.mark.parametrize(("arguments", "message"), WRONG, ids=lambda value: str(value)[:40])
def test_wrong_input(capsys, tmp_path, arguments, message):
    model_dir = tmp_path / "run"
    whole = "--train_examples=5" in arguments or arguments[0] == "help"
    few = [] if whole else ["--train_split=train[:2000]", "--eval_split=test[:500]"]
    command = [arguments[0]] if not arguments[0].startswith("-") else []
    flags = arguments[len(command) :]
    status, _, error = done(capsys, *command, *few, *flags, f"--model_dir={model_dir}")
    assert status == 2
    assert message in error
    assert error.startswith("crescendo ")
    assert len(error.strip().splitlines()) <= 2
    assert not (model_dir / "checkpoints").exists()


def test_no_model_dir(capsys):
    assert done(capsys) == (
        2,
        "",
        "crescendo train: --model_dir is missing: name the run's directory, as in runs/first.\n",
    )


def test_a_dataset_that_is_not_there_and_cannot_be_had(capsys, tmp_path, monkeypatch):
    for name in ("http_proxy", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # the discard port: nobody listens
    status, _, error = done(
        capsys, "--dataset=cifar10", f"--data_dir={tmp_path}", f"--model_dir={tmp_path}/run"
    )
    assert status == 2
    assert "cifar10" in error
    assert "tfds build" in error
    assert len(error.strip().splitlines()) <= 2


def test_a_name_that_no_file_can_have(capsys):
    status, _, error = done(capsys, "evaluate", f"--model_dir={300 * 'a'}")
    assert status == 2
    assert error.endswith(
        "aaa/export.json: File name too long.\nChoose a path that you can read and write.\n"
    )


def test_who_reads_the_output_may_leave():
    """Closes the pipe early, as `| head` does, while most of a long plan is not written."""
    plan = ["plan", "--format=json", "--warmup_epochs=2", "--epochs=2"]
    with subprocess.Popen(
        [sys.executable, "-m", "trainer", *plan], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()
        assert process.wait(60) == 1
        assert process.stderr.read() == b""


def test_ctrl_c_shows_no_traceback(tmp_path):
    """While it prints a plan of 1.5 MB into a pipe that nobody reads."""
    # A process of the background is started with it ignored, as are its children then.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    flags = ["--format=json", "--warmup_epochs=16", "--warmup_from=0.1"]
    process = started(tmp_path / "run", *flags, name="plan")
    signal.signal(signal.SIGINT, before)
    wait_for(lambda: select.select([process.stdout], [], [], 0)[0], process)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=10)[1] == ""
    assert process.returncode == 130


def test_convert_asks_for_the_set(capsys):
    status, _, error = done(capsys, "convert")
    assert status == 2
    assert "--dataset is missing: name one to convert" in error


def test_a_folder_that_is_named_as_a_set(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for command in ("train", "plan"):
        status, _, error = done(capsys, command, "--dataset=photos", "--model_dir=run")
        assert status == 2
        assert error.splitlines()[1] == (
            "For the images in it, write --dataset=image_folder:photos."
        )


def test_a_run_leaves_no_temporary_files(tmp_path):
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    environment = {**os.environ, "TMPDIR": str(temporary)}
    process = started(tmp_path / "run", *SHORT, "--epochs=0.01", env=environment)
    assert process.wait() == 0, process.communicate()
    assert [*temporary.iterdir()] == []
