"""A program outside the run calls a worker's port while TensorFlow's own server listens there."""

import contextlib
import json
import os
import pathlib
import subprocess

import grpc
import pytest

from tests.support.runs import CONSTANT, command, points, wait_for
from tests.support.workers import LINEAR, SMOOTH, finished, launched, workers_of

LONG = [*CONSTANT, "--epochs=1000", "--eval_every_epochs=1000", "--worker_timeout=4"]
SERVICE = "/tensorflow.CoordinationService/"
TASK_1 = b"\x0a\x06worker\x10\x01"  # CoordinatedTask(job_name="worker", task_id=1)
# RegisterTask with another incarnation; ReportErrorToService with a code and words of one's own.
CALLS = {
    "RegisterTask": b"\x19" + bytes(range(8)) + b"\x2a" + bytes([len(TASK_1)]) + TASK_1,
    "ReportErrorToService": b"\x08\x03\x12\x08evil\x1b[2J"
    + b"\x2a"
    + bytes([len(TASK_1)])
    + TASK_1,
}


@pytest.mark.parametrize("method", CALLS)
def test_what_a_stranger_does_to_tensorflow_ends_all_as_lost(tmp_path, method):
    process = launched(2, tmp_path / "run", *LINEAR, *LONG)
    wait_for(lambda: points(tmp_path / "run"), process)
    name = pathlib.Path(f"/proc/{workers_of(process)[0]}/comm").read_text()
    chief = f"localhost:{name.partition(':')[2].strip()}"
    # The service answers that this worker has failed, or has an error now.
    with grpc.insecure_channel(chief) as channel, contextlib.suppress(grpc.RpcError):
        channel.unary_unary(SERVICE + method)(CALLS[method], timeout=5)
    output = finished(process, 76)
    assert "Traceback" not in output
    told = [line for line in output.splitlines() if "crescendo train: " in line]
    assert any(f"worker 0 ({chief}) was cut off" in line for line in told), output
    assert all(line.isprintable() for line in told)


def test_workers_on_a_network_without_a_secret_are_refused(tmp_path):
    cluster = {"worker": ["192.0.2.1:8470", "192.0.2.2:8470"]}
    config = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": 1}})
    environment = {k: v for k, v in os.environ.items() if k != "CRESCENDO_SECRET"}
    done = subprocess.run(
        command(tmp_path / "run", "--strategy=multi_worker", *SMOOTH),
        env=environment | {"TF_CONFIG": config},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    what, remedy = done.stderr.splitlines()
    assert what.startswith("crescendo train: worker 1 (192.0.2.2:8470) has no secret")
    assert f"{tmp_path}/run/secret" in remedy
