"""submit_tpu.sh end to end, with a gcloud that records, answers and really runs commands.

Whatever happens, what was made and not deleted is said to be left behind, and nothing else is.
"""

import contextlib
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests.support import stand_in_gcloud
from trainer.config.flags import FLAGS

JOB = [
    "--accelerator_type=v5litepod-8",
    "--zone=us-west4-a",
    "--project=my-project",
    "--bucket=gs://bucket/runs",
]
RECIPE = ["--flagfile=flags/fashion_mnist_decay.flags", "--initial_batch_size=256"]
# What a test run in the background ignores, its children would ignore as well.
HEEDING = [shutil.which("env"), "--default-signal=INT"]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """What a job takes along, in a folder of its own: its logs are not this checkout's."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("flags", "scripts", "trainer"):
        shutil.copytree(name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("LICENSE", "README.md", "pyproject.toml", "setup.cfg"):
        shutil.copy(name, folder)
    return folder


class Cloud:
    """The stand-in's folder, and the script that runs against it."""

    def __init__(self, folder, checkout):
        self.folder, self.checkout = folder, checkout
        program = f"#!{sys.executable} -S\n{pathlib.Path(stand_in_gcloud.__file__).read_text()}"
        for path, text in {
            "gcloud": program,
            "machine_bin/python3": stand_in_gcloud.PYTHON,
            "trainer": stand_in_gcloud.TRAINER,
        }.items():
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_text(text)
            (folder / path).chmod(0o755)
        (folder / "bucket").mkdir()
        self.python = "true"  # Plans nothing, and at once.
        self.plays("0")
        self.goes()

    def goes(self, **scenario):
        (self.folder / "scenario.json").write_text(json.dumps({"account": "me@x.org"} | scenario))

    def plays(self, *plays):
        (self.folder / "plays").write_text("".join(f"{play}\n" for play in plays))

    def started(self, *arguments):
        environment = dict(
            os.environ,
            PATH=f"{self.folder}:{os.environ['PATH']}",
            STAND_IN=str(self.folder),
            CRESCENDO_PYTHON=self.python,
            CRESCENDO_POLL_SECONDS="0.01",
            CRESCENDO_COPY_SECONDS="0.3",
            CRESCENDO_RETRY_SECONDS="0.01",
        )
        script = self.checkout / "scripts" / "tpu" / "submit_tpu.sh"
        return subprocess.Popen(
            [*HEEDING, script, "--name=job", *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def submit(self, *arguments, status):
        return self.ended(self.started(*JOB, *RECIPE, *arguments), status)

    def ended(self, process, status):
        """The whole output, once the bill is checked."""
        out, err = process.communicate(timeout=30)
        assert process.returncode == status, out + err
        left = self.folder.joinpath("resource.json").exists()
        assert len(self.lines("made")) - len(self.lines("deleted")) == left
        assert ("LEFT BEHIND" in err) == left, err
        if left:  # By the very command that it names.
            command = err.split("LEFT BEHIND")[1].splitlines()[1]
            self.goes()
            words = shlex.split(command)
            assert words[0] == "gcloud"
            environment = dict(os.environ, STAND_IN=str(self.folder))
            subprocess.run([self.folder / "gcloud", *words[1:]], env=environment, check=True)
            assert not self.folder.joinpath("resource.json").exists()
        return out + err

    def lines(self, name):
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []

    def called(self, text):
        return [call for call in self.lines("calls") if text in call]

    def bucket(self, name):
        return (self.folder / "bucket/runs/job" / name).read_text()

    def end_machines(self):
        for file in self.folder.glob("machine/crescendo/*.pid"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(file.read_text()), signal.SIGKILL)

    def wait_for(self, text, count=1, file="calls"):
        for _ in range(600):
            if sum(text in line for line in self.lines(file)) >= count:
                return
            time.sleep(0.02)
        pytest.fail(f"no {text}: {self.lines('calls')}")


@pytest.fixture
def cloud(tmp_path, checkout):
    shutil.rmtree(checkout / "runs", ignore_errors=True)
    made = Cloud(tmp_path, checkout)
    yield made
    made.end_machines()


def test_success(cloud):
    cloud.python = sys.executable
    said = cloud.submit("--spot", "--fetch", "--label_smoothing=0.1", status=0)
    (create,) = cloud.called("queued-resources create")
    assert "--spot" in create
    assert "--runtime-version=v2-alpha-tpuv5-lite" in create
    (trained,) = cloud.lines("trained")
    assert trained.startswith(f"-m trainer train {' '.join(RECIPE)} --label_smoothing=0.1")
    assert trained.endswith("--strategy=tpu --tpu=local --model_dir=job/run")
    assert cloud.lines("libraries") == ["/lib/libtpu.so"]
    assert "update 100, then 0" in said
    assert "update 100, then 0" in (cloud.checkout / "runs/job.log").read_text()
    fetched = cloud.checkout / "runs/job"
    assert (fetched / "run/updates").read_text() == cloud.bucket("run/updates") == "100\n"
    (log,) = (fetched / "logs").iterdir()
    assert log.read_text() == "update 100, then 0\n"
    names = {path.name for path in cloud.folder.joinpath("bucket").rglob("*") if path.is_file()}
    assert names == {"updates", "started.txt", log.name}, (
        "the lock or what is incomplete went along"
    )


def test_on_demand_is_not_spot(cloud):
    cloud.submit(status=0)
    assert "spot" not in cloud.called("queued-resources create")[0]


def test_dry_run_prints_what_a_run_asks(cloud):
    said = cloud.submit("--fetch", "--dry_run", status=0)
    assert cloud.lines("calls") == []

    def asked(lines):
        """Without folders of the moment, and the steps that are repeated or come before."""
        lines = [re.sub(r"\S+/(crescendo.tar.gz)", r"\1", line) for line in lines]
        lines = [shlex.join(shlex.split(line)) for line in lines]
        return [line for line in lines if not re.match("auth|storage (ls|cp)|.*describe", line)]

    printed = [line.removeprefix("gcloud ") for line in said.splitlines() if line[:6] == "gcloud"]
    cloud.submit("--fetch", status=0)
    on_machine = [line for line in cloud.lines("calls") if "gs://bucket/runs/job" in line]
    on_machine = [line for line in on_machine if line.startswith("storage") and "--quiet" in line]
    real = [line for line in cloud.lines("calls") if line not in on_machine]
    assert asked(printed) == asked(real)
    assert asked(printed)
    for invented in ("ACTIVE", "exit 0", "saved", "nothing is left", "results:"):
        assert invented not in said.replace(" ".join(printed), "")


def test_help_needs_nothing(tmp_path):
    script = pathlib.Path("scripts/tpu/submit_tpu.sh").resolve()
    done = subprocess.run([script, "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    for option in ("--name=", "--spot", "--attempts=", "--fetch", "--dry_run"):
        assert option in done.stdout
    assert "#" not in done.stdout


def test_quota_is_refused(cloud):
    cloud.goes(quota=True)
    said = cloud.submit(status=1)
    assert "RESOURCE_EXHAUSTED: Quota limit" in said
    assert "it was refused" in said
    assert cloud.lines("made") == []


def test_no_capacity(cloud):
    cloud.goes(states=["WAITING_FOR_RESOURCES", "FAILED"])
    assert "There is no more capacity" in cloud.submit(status=1)
    assert cloud.lines("deleted") == ["job"]


def test_preempted_twice_goes_on(cloud):
    cloud.plays("preempted", "preempted", "0")
    said = cloud.submit("--spot", status=0)
    assert len(cloud.lines("made")) == len(cloud.called("tpu_worker.sh install")) == 3
    # Each disk was gone, and the updates came back from the bucket.
    assert "update 300, then 0" in said
    assert cloud.bucket("run/updates") == "300\n"


def test_preempted_before_it_trained(cloud):
    cloud.goes(states=["PROVISIONING", "SUSPENDED"])
    assert "picking" not in cloud.submit("--spot", "--attempts=3", status=75)
    assert len(cloud.lines("made")) == 3


def test_stopped_and_lost_start_again_on_the_same_tpu(cloud):
    cloud.plays("75", "76", "0")
    assert "update 300, then 0" in cloud.submit(status=0)
    assert len(cloud.lines("made")) == len(cloud.called("tpu_worker.sh install")) == 1


def test_attempts_end(cloud):
    cloud.plays("75", "75", "0")
    assert "gs://bucket/runs/job" in cloud.submit("--attempts=2", status=75)
    assert len(cloud.lines("trained")) == 2


@pytest.mark.parametrize("status", [2, 3, 74])
def test_the_trainers_own_ends(cloud, status):
    cloud.plays(status, "0")
    assert f"then {status}" in cloud.submit(status=status)
    assert len(cloud.lines("trained")) == 1


def test_installation_fails(cloud):
    cloud.goes(install="fails")
    said = cloud.submit(status=1)
    assert "no matching distribution" in said
    assert "could not be installed" in said
    assert cloud.lines("trained") == []


def test_the_connection_ends_and_the_run_goes_on(cloud):
    cloud.goes(drops=2)
    cloud.plays("wait")
    process = cloud.started(*JOB, *RECIPE)
    cloud.wait_for(" follow ", 3)
    subprocess.run("kill $(cat crescendo/trainer.pid)", shell=True, cwd=cloud.folder / "machine")
    cloud.plays("0")
    said = cloud.ended(process, 0)
    assert said.count("update 100, then wait") == 1, "the log was shown again"


@pytest.mark.parametrize("sent,status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_in_training(cloud, sent, status):
    cloud.plays("wait")
    process = cloud.started(*JOB, *RECIPE)
    cloud.wait_for("train", file="trained")
    if sent == signal.SIGINT:
        os.killpg(process.pid, sent)
    else:
        process.send_signal(sent)
    cloud.ended(process, status)
    assert "stopped, with a checkpoint" in next(
        path.read_text() for path in cloud.folder.glob("bucket/runs/job/logs/*")
    )


def test_interrupted_while_waiting(cloud):
    cloud.goes(states=["WAITING_FOR_RESOURCES"])
    process = cloud.started(*JOB, *RECIPE)
    cloud.wait_for("describe", 4)
    os.killpg(process.pid, signal.SIGINT)
    cloud.ended(process, 130)
    assert cloud.lines("deleted") == ["job"]


def test_interrupted_while_it_is_asked_for(cloud):
    cloud.goes(create_seconds=1)
    process = cloud.started(*JOB, *RECIPE)
    cloud.wait_for("create")
    os.killpg(process.pid, signal.SIGINT)
    cloud.ended(process, 130)
    assert cloud.lines("deleted") == ["job"]


def test_a_second_signal_says_what_is_left(cloud):
    cloud.goes(states=["WAITING_FOR_RESOURCES"], delete="hangs")
    process = cloud.started(*JOB, *RECIPE)
    cloud.wait_for("describe", 4)
    os.killpg(process.pid, signal.SIGINT)
    cloud.wait_for("delete")
    os.killpg(process.pid, signal.SIGINT)
    cloud.ended(process, 1)


def test_what_cannot_be_deleted_is_said(cloud):
    cloud.goes(delete="fails")
    assert "PERMISSION_DENIED" in cloud.submit(status=1)


def test_results_that_cannot_be_copied_are_kept(cloud):
    cloud.goes(copies="fail")
    assert "its results are on its disk alone" in cloud.submit(status=1)


def test_killed_and_called_again(cloud):
    cloud.plays("wait")
    process = cloud.started(*JOB, *RECIPE)
    cloud.wait_for(" follow ")
    process.kill()
    process.wait()
    again = cloud.started(*JOB, *RECIPE)
    cloud.wait_for(" follow ", 2)
    os.killpg(again.pid, signal.SIGINT)
    said = cloud.ended(again, 130)
    assert "job is there: picking it up" in said
    assert len(cloud.lines("made")) == len(cloud.lines("trained")) == 1


def test_somebody_elses_is_let_be(cloud):
    somebody = {"state": "ACTIVE", "type": "v5litepod-8", "made_by": ""}
    (cloud.folder / "resource.json").write_text(json.dumps(somebody))
    process = cloud.started(*JOB, *RECIPE)
    _, err = process.communicate()
    assert process.returncode == 2
    assert "job is there: ACTIVE" in err
    assert cloud.called("delete") == []


@pytest.mark.parametrize(
    "wrong,said",
    [
        (["--accelerator_type=v9-8"], "v9-8 is none that is known"),
        (["--accelerator_type=v4-32"], "v4-32 has several hosts"),
        (["--accelerator_type=v5litepod-16"], "v5litepod-16 has several hosts"),
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
        (["--dataset=image_folder:/data"], "is on this machine"),
        (["--sput"], "Unknown command line flag 'sput'"),
    ],
)
def test_refused_before_anything_is_made(cloud, wrong, said):
    cloud.python = sys.executable
    assert said in cloud.submit(*wrong, status=2)
    assert cloud.called("compute") == []


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, flag in FLAGS.items()
        if "plan" in flag.commands and "train" not in flag.commands
    ],
)
def test_a_flag_of_plan_alone_is_refused_before_a_tpu_is_made(cloud, name):
    assert f"--{name} is a flag of plan" in cloud.submit(f"--{name}=1", status=2)
    assert cloud.called("compute") == []


def test_a_flag_of_train_alone_is_not_refused(cloud):
    cloud.python = sys.executable
    assert "updates over" in cloud.submit("--stop_at_epoch=1", "--dry_run", status=0)


def test_refused_without_an_account(cloud):
    cloud.goes(account="")
    assert "gcloud auth login" in cloud.submit(status=2)
    assert cloud.called("compute") == []


def test_refused_without_gcloud(cloud, monkeypatch):
    (cloud.folder / "gcloud").unlink()
    (cloud.folder / "tools").mkdir()
    for tool in ("bash", "dirname", "true"):
        (cloud.folder / "tools" / tool).symlink_to(shutil.which(tool))
    monkeypatch.setenv("PATH", str(cloud.folder / "tools"))
    assert "gcloud is not on PATH" in cloud.submit(status=2)


@pytest.mark.parametrize(
    "kind,batch", [("v4-8", 128), ("v5p-8", 128), ("v6e-4", 128), ("v3-8", 256)]
)
def test_replicas_of_a_type(cloud, kind, batch):
    cloud.python = sys.executable
    smallest = [f"--accelerator_type={kind}", f"--initial_batch_size={batch}"]
    assert cloud.submit(*smallest, "--dry_run", status=0)
    cloud.submit(*smallest[:1], f"--initial_batch_size={batch // 2}", "--dry_run", status=2)
