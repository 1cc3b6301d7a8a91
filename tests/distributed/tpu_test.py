import datetime
import os
import subprocess
import sys

import pytest
import tensorflow as tf

from tests.support import tpu_api
from tests.support.configs import parsed
from tests.support.tpu_api import HEALTHY
from trainer.distributed import tpu
from trainer.distributed.tpu import TpuAddress
from trainer.errors import LostWorkerError, UserError
from trainer.system.tensorflow_errors import translate

V5 = TpuAddress("v5", "us-west4-a", "mine")
FLAGS = ["--strategy=tpu", "--tpu=v5", "--tpu_zone=us-west4-a", "--tpu_project=mine"]
WHERE = "v5 --zone=us-west4-a --project=mine"
OURS = tf.__version__


@pytest.fixture
def environment(tmp_path_factory):
    """Environment with credentials that Google's client accepts."""
    path = tmp_path_factory.mktemp("credentials") / "account.json"
    tpu_api.credentials(path)
    return {"GOOGLE_APPLICATION_CREDENTIALS": str(path)}


@pytest.fixture
def api(monkeypatch, environment):
    with tpu_api.api() as (served, where):
        environment |= where
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        parsed()  # Google's client defines an absl flag, so flags must be parsed before.
        monkeypatch.setattr(tpu, "_REQUEST_SECONDS", 0.5)
        monkeypatch.setattr(tpu, "_CONNECT_SECONDS", 0.5)
        monkeypatch.setattr(tpu, "_HEALTHY_SECONDS", 1.0)
        monkeypatch.setattr(tpu, "_POLL_SECONDS", 0.2)
        yield served


def refused():
    """The two lines that a user reads."""
    with pytest.raises(UserError) as error:
        tpu.connect(V5)
    lines = str(error.value).splitlines()
    assert len(lines) == 2, lines
    return lines


def error(message):
    return {"error": {"code": 0, "message": message}}


def test_an_unknown_tpu_is_refused(api):
    api.says(error("Resource 'v5' was not found."), status=404)
    assert refused() == [
        "TPU v5 is not in --tpu_zone=us-west4-a of --tpu_project=mine: Resource 'v5' was not "
        "found.",
        "See gcloud compute tpus tpu-vm list --zone=us-west4-a --project=mine.",
    ]


@pytest.mark.parametrize("status", [401, 403])
def test_missing_permissions_are_refused(api, status):
    api.says(error("The caller does not\nhave permission."), status=status)
    assert refused() == [
        "TPU v5 cannot be queried with these credentials: The caller does not have permission.",
        "Ask for the role roles/tpu.viewer in mine, or correct --tpu_project.",
    ]


@pytest.mark.parametrize("content", [error("no reason is given"), [], "what?"])
def test_an_error_of_the_api_is_reported(api, content):
    api.says(content, status=503)
    assert refused() == [
        "TPU v5 cannot be queried: Google's API answers 503: no reason is given",
        "Try again later.",
    ]


def test_a_slow_answer_is_an_error(api):
    api.says(HEALTHY, seconds=2)
    assert refused() == [
        "TPU v5 cannot be queried: no answer within 0.5 s.",
        "Check the network, and start again; on the TPU VM itself, use --tpu=local.",
    ]


def test_a_missing_network_is_an_error(api, monkeypatch):
    monkeypatch.setenv("TPU_API_DISCOVERY_URL", "http://127.0.0.1:9/discovery")
    first, remedy = refused()
    assert first.startswith("TPU v5 cannot be queried: ")
    assert "refused" in first
    assert remedy.startswith("Check the network")


def test_missing_credentials_are_an_error(api, monkeypatch, tmp_path):
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "nothing.json"))
    assert refused() == [
        "TPU v5 cannot be queried: there are no valid Google credentials here.",
        "Run gcloud auth application-default login, or set GOOGLE_APPLICATION_CREDENTIALS.",
    ]


@pytest.mark.parametrize("state", ["PREEMPTED", "TERMINATED"])
def test_a_preempted_tpu_is_refused(api, state):
    api.says({"state": state})
    assert refused() == [
        f"TPU v5 is {state} and cannot recover.",
        f"Delete it with `gcloud compute tpus tpu-vm delete {WHERE}`, and create it again.",
    ]


def test_a_stopped_tpu_is_refused(api):
    api.says({"state": "STOPPED"})
    start = f"`gcloud compute tpus tpu-vm start {WHERE}`"
    assert refused() == ["TPU v5 is STOPPED.", f"Start it: {start}."]


def test_a_tpu_that_ran_out_of_memory_is_refused(api):
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.0Z")
    api.says({**HEALTHY, "symptoms": [{"symptomType": "OUT_OF_MEMORY", "createTime": now}]})
    assert refused() == [
        "TPU v5 has run out of memory within the last 90 s.",
        "Start again later, with a smaller --micro_batch_size.",
    ]


def test_waiting_for_a_healthy_tpu_has_a_time_limit(api):
    api.says({"state": "READY", "health": "UNHEALTHY_MAINTENANCE"})
    assert refused() == [
        "TPU v5 has the state READY and the health UNHEALTHY_MAINTENANCE; it was not healthy "
        "within 1 s.",
        f"See `gcloud compute tpus tpu-vm describe {WHERE}`; if this does not change, create the "
        "TPU anew.",
    ]
    assert api.asked > 3 * 3  # The program waited for it.


def test_preemption_ends_the_wait_for_a_tpu(api):
    api.says(*[{"state": "CREATING"}] * 4, {"state": "PREEMPTED"})
    assert refused()[0] == "TPU v5 is PREEMPTED and cannot recover."


@pytest.mark.parametrize("version", ["2.12.0", "tpu-vm-tf-2.12.0-pod-pjrt"])
def test_another_tensorflow_version_is_refused(api, version):
    creating, sick = {"state": "CREATING"}, {"state": "READY", "health": "TIMEOUT"}
    api.says(*[creating] * 3, *[sick] * 3, {**HEALTHY, "tensorflowVersion": version})
    assert refused() == [
        f"TPU v5 has TensorFlow {version}, which is incompatible with {OURS} here.",
        f"Install TensorFlow 2.12 here, or create the TPU with --version={OURS}.",
    ]


@pytest.mark.parametrize("version", [OURS, "v2-alpha-tpuv5-lite", None])
def test_a_tpu_that_does_not_answer_is_refused(api, version):
    with tpu_api.silent() as port:
        endpoints = [{"ipAddress": "127.0.0.1", "port": port}]
        api.says({**HEALTHY, "tensorflowVersion": version, "networkEndpoints": endpoints})
        assert refused() == [
            f"TPU v5 does not answer at 127.0.0.1:{port} within 0.5 s; its runtime is "
            f"{version or 'unknown'}.",
            "Run on the TPU VM with --tpu=local, or in the TPU's network.",
        ]


def program(*arguments, environment=None):
    command = [sys.executable, "-m", "trainer", *arguments]
    environment = {**os.environ, **(environment or {})}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=100)


def test_the_program_refuses_a_healthy_host_without_cores(api, environment, tmp_path):
    """Without a TPU, this reaches the API, the host's port, and TensorFlow's connection."""
    with tpu_api.tensorflow_server() as (port, _):
        endpoints = [{"ipAddress": "127.0.0.1", "port": port}]
        api.says({**HEALTHY, "tensorflowVersion": OURS, "networkEndpoints": endpoints})
        done = program("train", f"--model_dir={tmp_path / 'run'}", *FLAGS, environment=environment)
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-2:] == [
        f"crescendo train: TensorFlow {OURS} finds no TPU at --tpu=v5.",
        "Run on the TPU VM itself, with --tpu=local.",
    ]


def test_the_program_refuses_the_hosts_of_a_slice_without_cores(tmp_path):
    with tpu_api.tensorflow_server() as (first, _), tpu_api.tensorflow_server() as (second, _):
        slice_of_two = f"127.0.0.1:{first},127.0.0.1:{second}"
        flags = ["--strategy=tpu", f"--tpu={slice_of_two}"]
        done = program("train", f"--model_dir={tmp_path / 'run'}", *flags)
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-2:] == [
        f"crescendo train: TensorFlow {OURS} finds no TPU at --tpu={slice_of_two}.",
        "Start scripts/tpu/tpu_host.py on each host of the slice, with the extra tpu.",
    ]


def test_a_tpu_of_several_hosts_is_refused_by_its_name(api):
    endpoints = [{"ipAddress": "127.0.0.1", "port": port} for port in (8470, 8471)]
    api.says({**HEALTHY, "networkEndpoints": endpoints})
    assert refused() == [
        "TPU v5 has 2 hosts, which this program drives by their addresses.",
        "Start the job with scripts/tpu/submit_tpu.sh, or see docs/tpus.md.",
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
from trainer.distributed.tpu import TpuAddress, lost
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
