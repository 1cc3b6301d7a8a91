"""submit_tpu.sh refuses wrong jobs before it makes a TPU, and its help needs no cloud."""

import json
import pathlib
import shutil
import subprocess
import sys

import pytest

from tests.support.tpu_job import JOB, RECIPE
from trainer.config.flags import FLAGS


def test_help_needs_nothing(tmp_path):
    script = pathlib.Path("scripts/tpu/submit_tpu.sh").resolve()
    done = subprocess.run([script, "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    for option in ("--name=", "--spot", "--attempts=", "--fetch", "--dry_run"):
        assert option in done.stdout
    assert "#" not in done.stdout


def test_another_users_tpu_is_left_alone(cloud):
    somebody = {"state": "ACTIVE", "type": "v5litepod-8", "made_by": ""}
    (cloud.folder / "resource.json").write_text(json.dumps(somebody))
    process = cloud.start(*JOB, *RECIPE)
    _, err = process.communicate()
    assert process.returncode == 2
    assert "job exists already: ACTIVE" in err
    assert cloud.calls_with("delete") == []


@pytest.mark.parametrize(
    "wrong,output",
    [
        (["--accelerator_type=v9-8"], "v9-8 is not a known type"),
        (["--accelerator_type=v3-32"], "v3-32 has several hosts"),
        (["--accelerator_type=v6e-16"], "v6e-16 has several hosts"),
        (["--accelerator_type=v4-12"], "v4-12 is not a known type"),
        (["--accelerator_type=v5litepod-24"], "v5litepod-24 is not a known type"),
        (["--initial_batch_size=128"], "128 is not a multiple of 8 replicas × ghost batch 32"),
        (["--zone="], "--zone is missing"),
        (["--project="], "--project is missing"),
        (["--bucket="], "--bucket is missing"),
        (["--bucket=bucket"], "write gs://BUCKET"),
        (["--bucket=gs://other"], "--bucket=gs://other cannot be read"),
        (["--name=Job"], "--name=Job: use"),
        (["--attempts=0"], "--attempts=0"),
        (["--model_dir=runs/x"], "--model_dir is set for a TPU job"),
        (["--flagfile=/tmp/x.flags"], "does not reach the TPU"),
        (["--dataset=image_folder:/data"], "is not for a TPU job"),
        (["--data_dir=/data"], "--data_dir=/data is a folder of this machine"),
        (["--model=my_model:build"], "--model=my_model:build is a module of this machine"),
        (["--init_from=runs/a"], "--init_from=runs/a is a file or folder of this machine"),
        (["--fork_from=runs/a@best"], "--fork_from=runs/a@best is a file or folder"),
        (["--class_weights=weights.csv"], "--class_weights=weights.csv is a file or folder"),
        (["--sput"], "Unknown command line flag 'sput'"),
    ],
)
def test_wrong_arguments_are_refused_before_a_tpu_is_made(cloud, wrong, output):
    cloud.python = sys.executable
    assert output in cloud.submit(*wrong, status=2)
    assert cloud.calls_with("compute") == []


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, flag in FLAGS.items()
        if "plan" in flag.commands
        and ("train" not in flag.commands or flag.group == "Predicted time")
    ],
)
def test_a_flag_of_plan_or_of_clusters_is_refused_before_a_tpu_is_made(cloud, name):
    assert f"--{name} is a flag of plan" in cloud.submit(f"--{name}=1", status=2)
    assert cloud.calls_with("compute") == []


def test_a_flag_of_train_alone_is_not_refused(cloud):
    cloud.python = sys.executable
    assert "updates over" in cloud.submit("--stop_at_epoch=1", "--dry_run", status=0)


def test_a_missing_account_is_refused(cloud):
    cloud.set_scenario(account="")
    assert "gcloud auth login" in cloud.submit(status=2)
    assert cloud.calls_with("compute") == []


def test_a_missing_gcloud_is_refused(cloud, monkeypatch):
    (cloud.folder / "gcloud").unlink()
    (cloud.folder / "tools").mkdir()
    for tool in ("bash", "dirname", "true"):
        (cloud.folder / "tools" / tool).symlink_to(shutil.which(tool))
    monkeypatch.setenv("PATH", str(cloud.folder / "tools"))
    assert "gcloud is not on PATH" in cloud.submit(status=2)


@pytest.mark.parametrize(
    "kind,batch",
    [
        ("v4-8", 128),
        ("v5p-8", 128),
        ("v6e-4", 128),
        ("v3-8", 256),
        ("v5litepod-16", 512),
        ("v4-32", 512),
        ("v5p-16", 256),
    ],
)
def test_each_type_has_its_number_of_replicas(cloud, kind, batch):
    cloud.python = sys.executable
    smallest = [f"--accelerator_type={kind}", f"--initial_batch_size={batch}"]
    assert cloud.submit(*smallest, "--dry_run", status=0)
    cloud.submit(*smallest[:1], f"--initial_batch_size={batch // 2}", "--dry_run", status=2)
