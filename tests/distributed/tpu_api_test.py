import datetime

import pytest
import tensorflow as tf

from tests.support import tpu_api
from tests.support.tpu_api import HEALTHY
from trainer.distributed import tpu
from trainer.distributed.tpu_address import TpuAddress
from trainer.errors import UserError

V5 = TpuAddress("v5", "us-west4-a", "mine")
WHERE = "v5 --zone=us-west4-a --project=mine"
OURS = tf.__version__


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
        "TPU v5 cannot be queried: this machine has no valid Google credentials.",
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


def test_a_tpu_of_several_hosts_is_refused_by_its_name(api):
    endpoints = [{"ipAddress": "127.0.0.1", "port": port} for port in (8470, 8471)]
    api.says({**HEALTHY, "networkEndpoints": endpoints})
    assert refused() == [
        "TPU v5 has 2 hosts, which this program drives by their addresses.",
        "Start the job with scripts/tpu/submit_tpu.sh, or see docs/tpus.md.",
    ]
