"""Google's TPU API and a TPU's own port, in their place on loopback: real HTTP, real gRPC."""

import contextlib
import http.server
import json
import socket
import subprocess
import sys
import threading
import time

import rsa

from tests.support import ports

NODE = "v1/projects/mine/locations/us-west4-a/nodes/v5"
HEALTHY = {"state": "READY", "health": "HEALTHY"}

_GET = {
    "id": "tpu.projects.locations.nodes.get",
    "httpMethod": "GET",
    "path": "v1/{+name}",
    "parameters": {"name": {"type": "string", "required": True, "location": "path"}},
    "parameterOrder": ["name"],
    "response": {"$ref": "Node"},
}
_TF_SERVER = """
import sys, time
import tensorflow as tf
port = int(sys.argv[1])
server = tf.distribute.Server({"worker": [f"127.0.0.1:{port}"]}, job_name="worker", task_index=0)
print(port, flush=True)
time.sleep(600)
"""


class Api:
    """Answers of the API: each of `answers` once, and then the last of them always.

    An answer is (status, object, seconds until it comes). `asked` counts the node's.
    """

    def __init__(self):
        self.answers = [(200, HEALTHY, 0)]
        self.asked = 0

    def says(self, *objects, status=200, seconds=0):
        self.answers = [(status, each, seconds) for each in objects]

    def answer(self, path, url):
        if path == "/discovery":
            resources = {"nodes": {"methods": {"get": _GET}}}
            for name in ("locations", "projects"):
                resources = {name: {"resources": resources}}
            about = {"name": "tpu", "version": "v1", "rootUrl": url, "servicePath": ""}
            schemas = {"Node": {"id": "Node", "type": "object"}}
            return 200, {**about, "schemas": schemas, "resources": resources}, 0
        assert path.startswith(f"/{NODE}"), path
        self.asked += 1
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@contextlib.contextmanager
def api():
    """The API, and the environment in which Google's client asks it."""
    served = Api()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            path = self.path.partition("?")[0]
            status, content, seconds = served.answer(path, f"http://{self.headers['Host']}/")
            time.sleep(seconds)
            with contextlib.suppress(OSError):  # Who asked has left.
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(json.dumps(content).encode())

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_address[1]}/discovery"
        yield served, {"TPU_API_DISCOVERY_URL": url}
    finally:
        server.shutdown()
        server.server_close()


def credentials(path):
    """Writes a service account's file with a key of its own, which signs without asking anyone."""
    _, key = rsa.newkeys(512)
    account = {
        "type": "service_account",
        "client_id": "1",
        "client_email": "nobody@example.com",
        "private_key_id": "1",
        "private_key": key.save_pkcs1().decode(),
    }
    path.write_text(json.dumps(account), encoding="utf-8")


@contextlib.contextmanager
def tensorflow_server():
    """TensorFlow's gRPC server, as a TPU's host has it but without cores: its port and process."""
    process = subprocess.Popen(
        [sys.executable, "-c", _TF_SERVER, str(ports.host_port())],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield int(process.stdout.readline()), process
    finally:
        process.kill()
        process.communicate()


@contextlib.contextmanager
def silent():
    """A port that accepts and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]
