"""Runs the real Kubernetes client over TLS against a server that answers like Kubernetes."""

import http.server
import json
import pathlib
import shutil
import socket
import ssl
import subprocess
import threading
import urllib.parse

import kubernetes
import pytest

from trainer.distributed import kubernetes_pods, kubernetes_secret
from trainer.distributed.worker import Worker, from_environment
from trainer.errors import LostWorkerError, UserError

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is missing")
TOKEN = "the pod's own"


def pod(index, state="Running", job="long", subdomain="ring", suffix="xyz"):
    return {
        "metadata": {"name": f"{job}-{index}-{suffix}", "labels": {"job-name": job}},
        "spec": {"hostname": f"{job}-{index}", "subdomain": subdomain, "containers": []},
        "status": {"phase": state, "hostIP": "10.0.0.1", "podIP": f"10.1.0.{index}"},
    }


class Api(http.server.BaseHTTPRequestHandler):
    """Lists one namespace's pods by labels and phase, and creates Secrets, for one token."""

    def do_GET(self):
        path, _, query = self.path.partition("?")
        asked = {name: value for name, (value,) in urllib.parse.parse_qs(query).items()}
        answer = (
            self.server.answers.pop(0) if len(self.server.answers) > 1 else self.server.answers[0]
        )
        if isinstance(answer, int):
            self.reply(answer, {"kind": "Status", "status": "Failure", "code": answer})
        elif self.headers["Authorization"] != f"bearer {TOKEN}":
            self.reply(401, {"kind": "Status", "status": "Failure", "code": 401})
        elif path != "/api/v1/namespaces/team/pods":
            self.reply(403, {"kind": "Status", "status": "Failure", "code": 403})
        else:
            label, _, value = asked["labelSelector"].partition("=")
            field, _, phase = asked["fieldSelector"].partition("=")
            assert field == "status.phase"
            found = [
                each
                for each in answer
                if each["metadata"]["labels"][label] == value and each["status"]["phase"] == phase
            ]
            self.reply(200, {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": found})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = self.server.answers.pop(0)
        if isinstance(answer, int):
            self.reply(answer, {"kind": "Status", "status": "Failure", "code": answer})
        else:
            answer.append((self.path, self.headers["Authorization"], body))
            self.reply(201, body)

    def reply(self, status, body):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    path = tmp_path_factory.mktemp("service account")
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    made += ["-subj", "/CN=kubernetes", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*made, "-keyout", path / "key", "-out", path / "ca.crt"], check=True)
    (path / "token").write_text(TOKEN)
    return path


@pytest.fixture
def server(certificate: pathlib.Path, monkeypatch):
    """A server and the environment of a pod; gives its `answers` in turn, and repeats the last."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "ca.crt", certificate / "key")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Api) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.answers = [[pod(0), pod(1)]]
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        for name, file in (("TOKEN", "token"), ("CERT", "ca.crt")):
            monkeypatch.setattr(
                kubernetes.config.incluster_config,
                f"SERVICE_{name}_FILENAME",
                str(certificate / file),
            )
        values = {
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": str(server.server_port),
            "JOB_NAME": "long",
            "WORKERS": "2",
            "POD_NAMESPACE": "team",
            "POD_NAME": "long-1-xyz",
        }
        for name, value in values.items():
            monkeypatch.setenv(name, value)
        for name in ("TF_CONFIG", "SLURM_STEP_NUM_TASKS"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(kubernetes_pods, "_PAUSE", 0.01)
        yield server
        server.shutdown()


def test_all_pods_of_the_job_are_found_when_all_run(server):
    others = [
        pod(0, job="short"),
        pod(0, "Failed", suffix="abc"),
        pod(1, "Succeeded", suffix="abc"),
    ]
    server.answers = [
        [*others, pod(0)],
        [*others, pod(0), pod(1, "Pending")],
        [*others, pod(1), pod(0)],
    ]
    assert from_environment(1.0) == Worker(("long-0.ring:8470", "long-1.ring:8470"), 1)
    assert len(server.answers) == 1


def test_a_restarted_pod_has_its_old_name(server, monkeypatch):
    """The other pods may be old ones, which end while the new pod waits."""
    before = from_environment(1.0)
    monkeypatch.setenv("POD_NAME", "long-1-new")
    server.answers = [
        [pod(0), pod(1)],  # Kubernetes does not list the new pod yet.
        [pod(0), pod(1, "Failed"), pod(1, suffix="new")],
    ]
    assert from_environment(1.0) == before


def test_eleven_pods_agree_on_one_order(server, monkeypatch):
    server.answers = [[pod(i) for i in range(11)]]
    monkeypatch.setenv("WORKERS", "11")
    found = from_environment(1.0)
    assert found.addresses[0] == "long-0.ring:8470"
    assert str(found) == f"worker {found.index} (long-1.ring:8470)"
    monkeypatch.setenv("POD_NAME", "long-10-xyz")
    assert from_environment(1.0).name(found.index) == str(found)


@pytest.mark.parametrize("trouble", [500, 503, 429])
def test_temporary_errors_of_kubernetes_are_retried(server, trouble):
    server.answers = [trouble, trouble, *server.answers]
    assert from_environment(1.0).index == 1
    server.answers = [trouble]
    with pytest.raises(LostWorkerError, match=f"Kubernetes answers {trouble} .*, after 0.1 s"):
        from_environment(0.01)


@pytest.mark.parametrize("status", [401, 403])
def test_without_the_right_to_list_pods_the_remedy_is_named(server, status):
    server.answers = [status]
    with pytest.raises(UserError, match=f"answers {status} .*namespace team.\n.*Role"):
        from_environment(1.0)


def test_another_namespace_is_forbidden(server, monkeypatch):
    monkeypatch.setenv("POD_NAMESPACE", "other")
    with pytest.raises(UserError, match="answers 403 Forbidden"):
        from_environment(1.0)


def test_waiting_for_pods_has_a_time_limit(server):
    server.answers = [[pod(1), pod(0, "Pending")]]
    wanted = r"1 pods of Job long run, and WORKERS=2, after 0.5 s.\n.*--worker_timeout"
    with pytest.raises(LostWorkerError, match=wanted):
        from_environment(0.05)


def test_an_api_that_does_not_answer_is_an_error(server, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(silent.getsockname()[1]))
        monkeypatch.setattr(kubernetes_pods, "REQUEST_TIMEOUT", (0.05, 0.05))
        with pytest.raises(LostWorkerError, match=r"Kubernetes does not answer: .*timed out"):
            from_environment(0.01)
    with pytest.raises(LostWorkerError, match=r"Kubernetes does not answer: .*refused"):
        from_environment(0.01)


def test_pods_without_host_names_are_refused(server):
    server.answers = [[pod(0, subdomain=None), pod(1)]]
    with pytest.raises(UserError, match=r"long-0-xyz has no host name .*\n.*headless Service"):
        from_environment(1.0)


def test_variables_missing_in_the_manifest_are_named(server, monkeypatch):
    monkeypatch.setenv("WORKERS", "two")
    with pytest.raises(UserError, match="WORKERS=two"):
        from_environment(1.0)
    monkeypatch.delenv("WORKERS")
    with pytest.raises(UserError, match="lacks WORKERS"):
        from_environment(1.0)


def test_a_missing_service_account_is_refused(server, monkeypatch, tmp_path):
    path = str(tmp_path / "token")
    monkeypatch.setattr(kubernetes.config.incluster_config, "SERVICE_TOKEN_FILENAME", path)
    with pytest.raises(UserError, match="service account cannot be used: "):
        from_environment(1.0)


def test_an_existing_secret_is_not_an_error(server):
    made = []
    server.answers = [made, made, 409]
    for _ in range(3):
        kubernetes_secret.make(kubernetes_pods.client(), "team", "ring")
    bodies = [body for _, _, body in made]
    assert [each[:2] for each in made] == [
        ("/api/v1/namespaces/team/secrets", f"bearer {TOKEN}")
    ] * 2
    assert [body["metadata"] for body in bodies] == [{"name": "ring"}] * 2
    assert len({body["stringData"][kubernetes_secret.KEY] for body in bodies}) == 2


def test_an_api_that_does_not_answer_makes_no_secret(server, monkeypatch):
    monkeypatch.setattr(kubernetes_pods, "REQUEST_TIMEOUT", (0.05, 0.05))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(silent.getsockname()[1]))
        with pytest.raises(UserError, match="Kubernetes does not answer: "):
            kubernetes_secret.make(kubernetes_pods.client(), "team", "ring")


def test_without_the_right_to_make_a_secret_the_remedy_is_named(server):
    server.answers = [403]
    with pytest.raises(UserError, match=r"answers 403 .*Secret ring .* team\.\n.*Role"):
        kubernetes_secret.make(kubernetes_pods.client(), "team", "ring")


@pytest.mark.parametrize("status", [404, 422, 503])
def test_a_secret_that_fails_for_another_reason_does_not_need_a_right(server, status):
    server.answers = [status]
    with pytest.raises(UserError, match=rf"answers {status} .*\nCheck the namespace and the name"):
        kubernetes_secret.make(kubernetes_pods.client(), "team", "ring")
