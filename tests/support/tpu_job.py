"""Runs submit_tpu.sh against a stand-in for gcloud; checks that it reports any TPU it leaves."""

import contextlib
import json
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests.support import stand_in_gcloud

JOB = [
    "--accelerator_type=v5litepod-8",
    "--zone=us-west4-a",
    "--project=my-project",
    "--bucket=gs://bucket/runs",
]
RECIPE = ["--flagfile=flags/fashion_mnist_decay.flags", "--initial_batch_size=256"]
# A test run in the background ignores SIGINT, and its children would inherit this.
WITH_SIGINT = [shutil.which("env"), "--default-signal=INT"]


class Cloud:
    """The stand-in's folder, and the script that runs against it."""

    def __init__(self, folder, checkout):
        self.folder, self.checkout = folder, checkout
        program = f"#!{sys.executable} -S\n{pathlib.Path(stand_in_gcloud.__file__).read_text()}"
        for path, text in {
            "gcloud": program,
            "machine_bin/python3": stand_in_gcloud.PYTHON,
            "machine_bin/curl": stand_in_gcloud.CURL,
            "trainer": stand_in_gcloud.TRAINER,
            "submitter": stand_in_gcloud.SUBMITTER.format(python=sys.executable),
        }.items():
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_text(text)
            (folder / path).chmod(0o755)
        (folder / "bucket").mkdir()
        self.python = "true"  # It ends at once instead of printing the plan.
        self.set_plays("0")
        self.set_scenario()

    def set_scenario(self, **scenario):
        """Sets what goes wrong in the cloud."""
        (self.folder / "scenario.json").write_text(json.dumps({"account": "me@x.org"} | scenario))

    def set_plays(self, *plays):
        """Sets how the next starts of the trainer end."""
        (self.folder / "plays").write_text("".join(f"{play}\n" for play in plays))

    def start(self, *arguments):
        """Starts the script."""
        environment = dict(
            os.environ,
            PATH=f"{self.folder}:{os.environ['PATH']}",
            STAND_IN=str(self.folder),
            CRESCENDO_PYTHON=self.python,
            CRESCENDO_POLL_SECONDS="0.01",
        )
        script = self.checkout / "scripts" / "tpu" / "submit_tpu.sh"
        return subprocess.Popen(
            [*WITH_SIGINT, script, "--name=job", *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def submit(self, *arguments, status):
        """Runs a whole job, and returns its output."""
        return self.finish(self.start(*JOB, *RECIPE, *arguments), status)

    def finish(self, process, status):
        """Waits for the script and returns its output; checks its status and what it leaves."""
        out, err = process.communicate(timeout=30)
        assert process.returncode == status, out + err
        left = self.folder.joinpath("resource.json").exists()
        assert len(self.lines("made")) - len(self.lines("deleted")) == left
        assert ("LEFT BEHIND" in err) == left, err
        if left:  # The command in the message must delete it.
            command = err.split("LEFT BEHIND")[1].splitlines()[1]
            self.set_scenario()
            words = shlex.split(command)
            assert words[0] == "gcloud"
            environment = dict(os.environ, STAND_IN=str(self.folder))
            subprocess.run([self.folder / "gcloud", *words[1:]], env=environment, check=True)
            assert not self.folder.joinpath("resource.json").exists()
        return out + err

    def lines(self, name):
        """The lines of one of the stand-in's files."""
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []

    def calls_with(self, text):
        """The calls of gcloud that contain `text`."""
        return [call for call in self.lines("calls") if text in call]

    def bucket(self, name):
        """The content of one of the job's files in the bucket."""
        return (self.folder / "bucket/runs/job" / name).read_text()

    def end_machines(self):
        """Kills what still runs on the machine."""
        for file in self.folder.glob("machine*/crescendo/*.pid"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(file.read_text().split()[0]), signal.SIGKILL)

    def wait_for(self, text, count=1, file="calls"):
        """Waits until `count` lines of a file contain `text`."""
        for _ in range(600):
            if sum(text in line for line in self.lines(file)) >= count:
                return
            time.sleep(0.02)
        pytest.fail(f"{text} is missing in {file}: {self.lines('calls')}")
