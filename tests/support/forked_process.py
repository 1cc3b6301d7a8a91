"""Starts of the program that share one import of TensorFlow: forks of tests.support.fork_server."""

import ctypes
import functools
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

# Variables that no import reads: a start with another value of any other one is not forked.
_READ_LATER = {"TF_CONFIG", "CRESCENDO_SECRET", "PYTEST_CURRENT_TEST", "KERAS_BACKEND"}
_PR_SET_CHILD_SUBREAPER = 36  # of <linux/prctl.h>
_LOCK = threading.Lock()


class _Server:
    """The process to fork from, with the environment and folder in which it has imported all."""

    def __init__(self) -> None:
        self.environment = _read_at_import(os.environ)
        self.folder = os.getcwd()
        self.connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.fork_server", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )


@functools.cache
def _server() -> _Server:
    return _Server()


def _read_at_import(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name not in _READ_LATER}


@contextmanager
def _adopting() -> Iterator[None]:
    """Makes this process the parent of processes below it whose own parent ends meanwhile."""
    libc = ctypes.CDLL(None, use_errno=True)
    with _LOCK:
        assert libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
        try:
            yield
        finally:
            libc.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


class ForkedProcess(subprocess.Popen):
    """A Popen whose process is forked from the server, and is this process's own child.

    Its arguments are [sys.executable, "-m", module, ...]. Only the streams, `env` and
    `start_new_session` may be given.
    """

    def _execute_child(self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, *rest):
        # What subprocess calls them: p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite.
        pipes = rest[3:9]
        streams = [pipes[0], pipes[3], pipes[5]]
        request = {
            "module": [os.fspath(each) for each in args[2:]],
            "environment": dict(os.environ if env is None else env),
            "start_new_session": rest[-2],
        }
        descriptors = [own if given == -1 else given for own, given in enumerate(streams)]
        try:
            connection = _server().connection
            with _adopting():
                socket.send_fds(connection, [json.dumps(request).encode()], descriptors)
                answer = connection.recv(64)
            assert answer, "the fork server has ended"
            self.pid = int(answer)
            self._child_created = True
        finally:
            self._close_pipe_fds(*pipes)


def start(line, env=None, **options):
    """Starts a line of runs.command: by a fork, if its environment is that of the server."""
    environment = os.environ if env is None else env
    if sys.platform == "linux":
        server = _server()
        if (os.getcwd(), _read_at_import(environment)) == (server.folder, server.environment):
            return ForkedProcess(line, env=env, **options)
    return subprocess.Popen(line, env=env, **options)
