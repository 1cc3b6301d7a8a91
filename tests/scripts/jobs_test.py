"""Checks the files for schedulers: they are complete, and agree with the program."""

import importlib.util
import os
import pathlib
import signal
import subprocess
import sys
import time

import kubernetes
import pytest
import yaml

from tests.support.configs import parsed
from trainer.distributed import kubernetes_pods, kubernetes_secret, shared_secret
from trainer.errors import ExitStatus

MANIFEST = "scripts/cluster/train_k8s.yaml"
# The workers have one object of each kind.
KINDS = ("Job", "Service", "ServiceAccount", "Role", "RoleBinding")


@pytest.mark.parametrize("path", sorted(pathlib.Path("scripts").rglob("*.s[hb]*")))
def test_bash_accepts_the_syntax(path):
    subprocess.run(["bash", "-n", path], check=True)


@pytest.mark.parametrize(
    "wrong",
    ["RESTARTS=-1", "RESTARTS=x", "RESTARTS=", "PATIENCE=-1", "PATIENCE=soon", "PATIENCE=nan"],
)
def test_wrong_limits_of_the_launcher_are_refused_in_two_lines(wrong):
    name, _, value = wrong.partition("=")
    done = subprocess.run(
        [sys.executable, "scripts/launch_local.py", "2"],
        env=os.environ | {name: value, "PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 2
    what, remedy = done.stderr.splitlines()
    assert what.startswith(f"launch_local: {wrong} is not a number")
    assert "leave it out" in remedy


def local_launcher():
    spec = importlib.util.spec_from_file_location("launch_local", "scripts/launch_local.py")
    launcher = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(launcher)
    return launcher


def test_each_local_start_has_a_new_secret(monkeypatch):
    monkeypatch.setenv(shared_secret.VARIABLE, "an earlier start's")
    starts = [local_launcher().environments(3) for _ in range(2)]
    given = [{worker[shared_secret.VARIABLE] for worker in start} for start in starts]
    assert [len(each) for each in given] == [1, 1]
    assert {len(bytes.fromhex(each)) for each in set.union(*given)} == {32}
    assert given[0] != given[1]


def test_a_signal_during_the_start_reaches_the_workers(monkeypatch):
    launcher = local_launcher()

    def start(*_):
        signal.raise_signal(signal.SIGTERM)
        return subprocess.Popen(["sleep", "60"]), subprocess.Popen(["true"])

    monkeypatch.setattr(launcher, "start", start)
    monkeypatch.setattr(sys, "argv", ["launch_local.py", "2"])
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    begin = time.monotonic()
    try:
        assert launcher.main() == 128 + signal.SIGTERM
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    assert time.monotonic() - begin < 30


@pytest.mark.parametrize("number", ["0", "-1", "2:0", ":2", "1:2:3", "two", ""])
def test_the_local_launcher_refuses_other_numbers(number):
    assert local_launcher().asked([number, "--epochs=1"]) is None


def test_the_local_launcher_reads_numbers_and_ranges():
    asked = local_launcher().asked
    assert asked(["3", "--epochs=1"]) == (3, ["--strategy=multi_worker", "--epochs=1"])
    assert asked(["2:4"]) == (4, ["--strategy=multi_worker", "--workers=2:4"])
    assert asked(["2", "--workers=1:4"]) == (2, ["--strategy=multi_worker", "--workers=1:4"])
    assert asked(["2:4", "--workers=1:4"]) is asked(["2:4", "--workers", "1:4"]) is None


def test_the_local_launcher_waits_for_the_first_worker_of_a_change():
    """The first worker may still copy the run to its bucket."""
    script = "import sys, time; time.sleep(float(sys.argv[1])); sys.exit(77)"
    workers = [subprocess.Popen([sys.executable, "-c", script, each]) for each in ("1", "0")]
    assert local_launcher().wait_for_all(workers, 0.2) == [77, 77]


def documents(text=None):
    found = list(yaml.safe_load_all(text or pathlib.Path(MANIFEST).read_text()))
    return {f"{each['kind']} {each['metadata']['name']}": each for each in found}


@pytest.mark.parametrize("kind", documents())
def test_kubernetes_accepts_every_field_of_the_manifest(kind):
    """Kubernetes' client refuses wrong types, and drops unknown fields."""
    document = documents()[kind]
    read = getattr(kubernetes.client, f"V1{document['kind']}").from_dict(document)
    assert kubernetes.client.ApiClient().sanitize_for_serialization(read) == document


def test_the_documented_command_sets_all_numbers_of_workers():
    page = pathlib.Path("docs/clusters.md").read_text()
    (line,) = (line.strip() for line in page.splitlines() if line.strip().startswith("sed -E"))
    edit = line.removesuffix("|")
    done = subprocess.run(["bash", "-c", f"n=5; {edit}"], capture_output=True, check=True)
    job = documents(done.stdout)["Job crescendo"]["spec"]
    (workers,) = (
        each["value"]
        for each in job["template"]["spec"]["containers"][0]["env"]
        if each["name"] == "WORKERS"
    )
    assert (job["completions"], job["parallelism"], workers) == (5, 5, "5")


def test_the_manifest_and_the_program_agree():
    found = {kind: documents()[f"{kind} crescendo"] for kind in KINDS}
    job = found["Job"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"] == ["python", "-m", "trainer", "train"]
    assert parsed(*container["args"]).strategy == "multi_worker"
    environment = {each["name"]: each for each in container["env"]}
    assert set(environment) == {*kubernetes_pods.NAMES, shared_secret.VARIABLE}
    assert int(environment["WORKERS"]["value"]) == job["parallelism"] == job["completions"]
    assert job["completionMode"] == "Indexed"
    (port,) = found["Service"]["spec"]["ports"]
    assert port["port"] == kubernetes_pods.PORT
    assert pod["subdomain"] == found["Service"]["metadata"]["name"]
    assert found["Service"]["spec"]["selector"] == {"job-name": found["Job"]["metadata"]["name"]}
    assert pod["serviceAccountName"] == found["RoleBinding"]["subjects"][0]["name"]
    assert found["RoleBinding"]["roleRef"]["name"] == found["Role"]["metadata"]["name"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {
        volume["name"] for volume in pod["volumes"]
    }


def test_the_manifest_creates_the_workers_secret():
    """The account that creates the Secret may do nothing else, and the workers may not do it."""
    found = documents()
    pod = found["Job crescendo-secret"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    *program, name = container["command"]
    assert program == ["python", "-m", kubernetes_secret.__name__]
    assert [each["name"] for each in container["env"]] == ["POD_NAMESPACE"]
    (worker,) = found["Job crescendo"]["spec"]["template"]["spec"]["containers"]
    (given,) = (each for each in worker["env"] if each["name"] == shared_secret.VARIABLE)
    assert given["valueFrom"] == {"secretKeyRef": {"name": name, "key": kubernetes_secret.KEY}}
    assert pod["serviceAccountName"] == "crescendo-secret"
    for account, rule in (("crescendo-secret", "secrets create"), ("crescendo", "pods list")):
        binding = found[f"RoleBinding {account}"]
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": account}]
        assert binding["roleRef"]["name"] == account
        (allowed,) = found[f"Role {account}"]["rules"]
        assert f"{allowed['resources'][0]} {allowed['verbs'][0]}" == rule
        assert [len(words) for words in allowed.values()] == [1, 1, 1]


def test_only_workers_may_call_the_workers():
    found = documents()
    policy, job = found["NetworkPolicy crescendo"]["spec"], found["Job crescendo"]["metadata"]
    workers_alone = {"matchLabels": {"job-name": job["name"]}}
    assert policy == {
        "podSelector": workers_alone,
        "policyTypes": ["Ingress"],
        "ingress": [{"from": [{"podSelector": workers_alone}]}],
    }


def test_kubernetes_restarts_after_the_same_statuses_as_slurm():
    job = documents()["Job crescendo"]["spec"]
    assert job["template"]["spec"]["restartPolicy"] == "Never"
    actions = {}
    for rule in job["podFailurePolicy"]["rules"]:
        if ended := rule.get("onExitCodes"):
            assert ended["containerName"] == "worker"
            actions |= dict.fromkeys(ended["values"], rule["action"])
    assert actions == {
        ExitStatus.STOPPED: "Ignore",
        128 + signal.SIGTERM: "Ignore",
        ExitStatus.LOST_WORKER: "Ignore",
        ExitStatus.USER_ERROR: "FailJob",
        ExitStatus.NOT_FINITE: "FailJob",
        ExitStatus.NOT_SAVED: "FailJob",
        ExitStatus.OTHER_WORKERS: "FailJob",  # The Job's number of workers is fixed.
    }
