"""TensorFlow's own TPUStrategy traces the step for two real servers on loopback."""

import json
import subprocess
import sys

from tests.support import pod


def test_each_replica_takes_its_micro_batch_from_its_own_host(tmp_path):
    folders = [tmp_path / name for name in ("host0", "host1")]
    for folder in folders:
        folder.mkdir()
    with pod.hosts(*folders) as (_, addresses):
        command = [sys.executable, "-m", "tests.support.pod_trace", addresses]
        done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["iterators"] == [0, 0, 1, 1]
    # The accumulation has no reduction; the update has one for each sum.
    accumulation, update = found["reductions"]
    assert accumulation == 0
    assert update > found["parameters"]
