import json

import pytest

from trainer.distributed.worker import Worker, from_environment
from trainer.errors import UserError


@pytest.fixture(autouse=True)
def nowhere(monkeypatch):
    for name in ("TF_CONFIG", "SLURM_STEP_NUM_TASKS", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)


def tf_config(monkeypatch, cluster, kind="worker", index=0):
    value = {"cluster": cluster, "task": {"type": kind, "index": index}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(value))


def test_a_worker_is_read_from_tf_config(monkeypatch):
    tf_config(monkeypatch, {"worker": ["a:1", "b:22"]}, index=1)
    worker = from_environment(0.0)
    assert worker.addresses == ("a:1", "b:22")
    assert (worker.index, worker.chief, worker.port) == (1, False, 22)
    assert str(worker) == "worker 1 (b:22)"


@pytest.mark.parametrize(("kind", "index", "wanted"), [("chief", 0, 0), ("worker", 1, 2)])
def test_a_task_of_type_chief_is_the_first_worker(monkeypatch, kind, index, wanted):
    tf_config(monkeypatch, {"worker": ["b:1", "c:1"], "chief": ["a:1"]}, kind, index)
    worker = from_environment(0.0)
    assert worker.addresses == ("a:1", "b:1", "c:1")
    assert worker.index == wanted


@pytest.mark.parametrize(
    "value",
    [
        "worker 0 of 2",
        "[1, 2]",
        "{}",
        '{"cluster": {"worker": ["a:1"]}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "chief", "index": 0}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": "x"}}',
        '{"cluster": {"worker": ["a:1", "a:1"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:0"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:1", "b:65536"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": {"0": "a:1", "2": "b:1"}}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, "task": {"type": "worker", "index": 0}}',
    ],
)
def test_a_wrong_tf_config_is_refused_in_two_lines(monkeypatch, value):
    monkeypatch.setenv("TF_CONFIG", value)
    with pytest.raises(UserError, match="TF_CONFIG") as error:
        from_environment(0.0)
    assert len(str(error.value).splitlines()) <= 2


def slurm(monkeypatch, nodes, tasks_per_node, tasks, process, node, local, job=1000042):
    """Sets the variables that srun of Slurm 22.05 gives a task; returns the worker."""
    values = {
        "SLURM_JOB_ID": job,
        "SLURM_STEP_NODELIST": nodes,
        "SLURM_STEP_TASKS_PER_NODE": tasks_per_node,
        "SLURM_STEP_NUM_TASKS": tasks,
        "SLURM_PROCID": process,
        "SLURMD_NODENAME": node,
        "SLURM_LOCALID": local,
    }
    for name, value in values.items():
        monkeypatch.setenv(name, str(value))
    return from_environment(0.0)


@pytest.mark.parametrize(
    ("nodes", "tasks_per_node", "tasks"),
    [
        ("gpu9", "1", [("gpu9", 0)]),
        ("gpu[9-10]", "1(x2)", [("gpu9", 0), ("gpu10", 0)]),
        ("gpu[9-10]", "2,1", [("gpu9", 0), ("gpu9", 1), ("gpu10", 0)]),
        # This is --distribution=cyclic.
        ("gpu[9-10]", "2(x2)", [("gpu9", 0), ("gpu10", 0), ("gpu9", 1), ("gpu10", 1)]),
        ("gpu[1-3,7]", "1(x4)", [("gpu1", 0), ("gpu2", 0), ("gpu3", 0), ("gpu7", 0)]),
        (
            "n[08-10],big,r2-n1",
            "1(x3),2,1",
            [(f"n{i}", 0) for i in ("08", "09", "10")] + [("big", 0), ("big", 1), ("r2-n1", 0)],
        ),
    ],
)
def test_a_worker_is_read_from_slurms_environment(monkeypatch, nodes, tasks_per_node, tasks):
    """TensorFlow's resolver sorts gpu10 before gpu9, unlike Slurm; each task still finds itself."""
    wanted = [f"{node}:{20672 + local}" for node, local in tasks]
    for process, (node, local) in enumerate(tasks):
        found = slurm(monkeypatch, nodes, tasks_per_node, len(tasks), process, node, local)
        assert found.addresses == tuple(sorted(wanted))
        assert found.addresses[found.index] == wanted[process]


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("SLURM_JOB_ID", None, "lacks SLURM_JOB_ID"),
        ("SLURM_LOCALID", None, "lacks SLURM_LOCALID"),
        ("SLURM_PROCID", None, "is wrong: .*SLURM_PROCID"),
        ("SLURM_STEP_NUM_TASKS", "two", "is wrong: .*'two'"),
        ("SLURM_STEP_TASKS_PER_NODE", "x", "is wrong: "),
    ],
)
def test_a_wrong_slurm_environment_is_refused_in_two_lines(monkeypatch, name, value, problem):
    slurm(monkeypatch, "gpu9", "2", 2, 0, "gpu9", 0)
    if value is None:
        monkeypatch.delenv(name)
    else:
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=f"Slurm's environment {problem}") as error:
        from_environment(0.0)
    assert len(str(error.value).splitlines()) == 2


@pytest.mark.parametrize("job", [100, 624, 12_499_999])
def test_slurm_jobs_on_one_node_have_different_ports(monkeypatch, job):
    jobs = (job, job + 1, job + 2)
    found = [slurm(monkeypatch, "gpu9", "16", 16, 3, "gpu9", 3, each).addresses for each in jobs]
    ports = [int(address.rpartition(":")[2]) for addresses in found for address in addresses]
    assert len(set(ports)) == 3 * 16
    assert min(ports) >= 20_000
    assert max(ports) < 30_000


def test_without_a_cluster_the_remedy_is_named():
    with pytest.raises(UserError, match=r"scripts/launch_local\.sh"):
        from_environment(0.0)


def test_a_secret_is_not_shown():
    assert "hidden" not in repr(Worker(("a:1",), 0, secret=b"hidden"))


@pytest.mark.parametrize(
    ("addresses", "local"),
    [
        (["localhost:1", "127.0.0.2:1", "[::1]:1"], True),
        (["a:1"], True),  # A single worker meets no other.
        (["localhost:1", "a:1"], False),
        (["localhost:1", "10.0.0.1:1"], False),
        (["localhost:1", "localhost.example.org:1"], False),
    ],
)
def test_local_means_that_all_addresses_are_loopback(addresses, local):
    assert Worker(tuple(addresses), 0).local == local
