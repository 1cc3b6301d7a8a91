import os
import subprocess
import sys

import pytest
import tensorflow as tf

from tests.support import tpu_api
from tests.support.tpu_api import HEALTHY
from trainer.distributed import tpu
from trainer.distributed.host_monitor import Programs
from trainer.distributed.tpu_address import TpuAddress
from trainer.errors import LostWorkerError, UserError
from trainer.system.tensorflow_errors import translate

V5 = TpuAddress("v5", "us-west4-a", "mine")
FLAGS = ["--strategy=tpu", "--tpu=v5", "--tpu_zone=us-west4-a", "--tpu_project=mine"]
WHERE = "v5 --zone=us-west4-a --project=mine"
OURS = tf.__version__


def program(*arguments, environment=None):
    command = [sys.executable, "-m", "trainer", *arguments]
    environment = {**os.environ, **(environment or {})}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=100)


@pytest.fixture(scope="module")
def servers():
    """The ports of two servers."""
    with tpu_api.tensorflow_server() as (first, _), tpu_api.tensorflow_server() as (second, _):
        yield first, second


def test_the_program_refuses_a_healthy_host_without_cores(api, environment, servers, tmp_path):
    """Without a TPU, this reaches the API, the host's port, and TensorFlow's connection."""
    port, _ = servers
    endpoints = [{"ipAddress": "127.0.0.1", "port": port}]
    api.says({**HEALTHY, "tensorflowVersion": OURS, "networkEndpoints": endpoints})
    done = program("train", f"--model_dir={tmp_path / 'run'}", *FLAGS, environment=environment)
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-2:] == [
        f"crescendo train: TensorFlow {OURS} finds no TPU at --tpu=v5.",
        "Run on the TPU VM itself, with --tpu=local.",
    ]


def test_the_program_refuses_the_hosts_of_a_slice_without_cores(servers, tmp_path):
    for port in servers:
        Programs().listen(port)
    slice_of_two = ",".join(f"127.0.0.1:{port}" for port in servers)
    flags = ["--strategy=tpu", f"--tpu={slice_of_two}"]
    done = program("train", f"--model_dir={tmp_path / 'run'}", *flags)
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-2:] == [
        f"crescendo train: TensorFlow {OURS} finds no TPU at --tpu={slice_of_two}.",
        "Run `bash scripts/tpu/tpu_worker.sh host` on each host, with the extra tpu.",
    ]


def test_the_program_refuses_a_preempted_tpu(api, environment, tmp_path):
    api.says({"state": "PREEMPTED"})
    done = program("train", f"--model_dir={tmp_path / 'run'}", *FLAGS, environment=environment)
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-2:] == [
        "crescendo train: TPU v5 is PREEMPTED and cannot recover.",
        f"Delete it with `gcloud compute tpus tpu-vm delete {WHERE}`, and create it again.",
    ]


def test_the_program_refuses_a_machine_without_a_tpu(tmp_path):
    done = program("train", f"--model_dir={tmp_path / 'run'}", "--strategy=tpu", "--tpu=local")
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-2:] == [
        f"crescendo train: TensorFlow {OURS} is not built for TPUs.",
        "On a TPU VM, run pip install -e '.[tpu]' in an environment without another TensorFlow; "
        "elsewhere, leave --strategy=tpu out.",
    ]


LOSING = """
import sys
import tensorflow as tf
from trainer.distributed.tpu import lost
from trainer.distributed.tpu_address import TpuAddress
from trainer.system.tensorflow_errors import translate
from trainer.errors import LostWorkerError
resolver = tf.distribute.cluster_resolver.TPUClusterResolver(f"grpc://127.0.0.1:{sys.argv[1]}")
tf.config.experimental_connect_to_cluster(resolver)
with tf.device("/job:worker/replica:0/task:0/device:CPU:0"):
    total = tf.Variable(0.0)

@tf.function
def add():
    return total.assign_add(1.0)

try:
    with translate(lost(TpuAddress("v5", "us-west4-a", "mine"))):
        while True:
            print(add().numpy(), flush=True)
except LostWorkerError as error:
    print(error, file=sys.stderr)
    sys.exit(LostWorkerError.status)
"""


def test_a_host_lost_during_computation_is_reported(api, environment):
    api.says({"state": "PREEMPTED"})
    with tpu_api.tensorflow_server() as (port, server):
        process = subprocess.Popen(
            [sys.executable, "-c", LOSING, str(port)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        assert process.stdout.readline()
        server.kill()
        _, errors = process.communicate(timeout=100)
    assert process.returncode == LostWorkerError.status, errors
    lines = errors.splitlines()
    (first,) = [line for line in lines if line.startswith("TPU v5 is lost: ")]
    assert lines[lines.index(first) + 1] == (
        "TPU v5 is PREEMPTED and cannot recover. Delete it with "
        f"`gcloud compute tpus tpu-vm delete {WHERE}`, and create it again."
    )


def lost(which):
    with pytest.raises(LostWorkerError) as error, translate(tpu.lost(which)):
        raise tf.errors.UnavailableError(None, None, "Connection reset\nand more")
    return str(error.value).splitlines()


def test_the_remedy_for_a_recoverable_loss_is_a_restart(api):
    api.says(HEALTHY)
    again = "Start the same command again: it resumes from the last checkpoint."
    assert lost(V5) == ["TPU v5 is lost: Connection reset", again]
    assert lost(TpuAddress("local", None, None)) == [
        "the TPU of this machine is lost: Connection reset",
        again,
    ]


def test_errors_without_a_tpu_are_unchanged():
    with pytest.raises(tf.errors.UnavailableError), translate(tpu.lost(None)):
        raise tf.errors.UnavailableError(None, None, "another one")


@pytest.mark.parametrize(
    ("tensorflow", "libtpu", "good"),
    [
        ("2.20.0", "0.0.42.1", False),
        ("2.20.0", "0.0.25", False),
        ("2.20.0", "0.0.24", True),
        ("2.20.1", "0.0.14", True),
        ("2.21.0", "0.0.42.1", True),
        ("2.20.0", None, True),
        (None, "0.0.42.1", True),
    ],
)
def test_incompatible_packages_are_refused(monkeypatch, tmp_path, tensorflow, libtpu, good):
    for name, version in (("tensorflow-tpu", tensorflow), ("libtpu", libtpu)):
        if version:
            folder = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info"
            folder.mkdir()
            metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
            (folder / "METADATA").write_text(metadata, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    if good:
        tpu.check_packages()
        return
    with pytest.raises(UserError) as error:
        tpu.check_packages()
    assert str(error.value).splitlines() == [
        f"tensorflow-tpu {tensorflow} aborts with libtpu {libtpu}, which is too new.",
        "Run pip install 'libtpu<=0.0.24'.",
    ]
