"""Starts of the program that share one import of TensorFlow: forks of tests.support.fork_server."""

import contextlib
import ctypes
import functools
import os
import pickle
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

# Variables that no import reads: a start with another value of any other one is not forked.
_READ_LATER = {
    "AWS_ACCESS_KEY_ID",
    "AWS_ENDPOINT_URL",
    "AWS_SECRET_ACCESS_KEY",
    "CRESCENDO_SECRET",
    "CUDA_VISIBLE_DEVICES",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "KERAS_BACKEND",
    "PATIENCE",
    "PYTHONPATH",
    "PYTEST_CURRENT_TEST",
    "RESTARTS",
    "STORAGE_EMULATOR_HOST",
    "TF_CONFIG",
    "TPU_API_DISCOVERY_URL",
    "VIRTUAL_ENV",
}
# Modules that a start with `python -m` forks.
_MODULES = (
    "trainer",
    "tests.support.counted",
    "tests.support.mirrored",
    "scripts.gpu.gpu_fit",
    "scripts.gpu.pack",
    "scripts.tpu.tpu_fit",
    "tests.support.pod",
    "tests.support.pod_trace",
    "tests.support.python_runs",
)
# Scripts that the server forks. Their own starts of the program are forked, too.
_SCRIPTS = ("scripts/launch_local.py", "scripts/benchmarks/run_experiment.py")
_PR_SET_CHILD_SUBREAPER = 36  # of <linux/prctl.h>
_LOCK = threading.Lock()
_Popen = subprocess.Popen


def _read_at_import(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name not in _READ_LATER}


class _Server:
    """The process to fork from, with the environment in which it has imported all."""

    connection: socket.socket | None = None

    @functools.cached_property
    def environment(self) -> dict[str, str]:
        return _read_at_import(os.environ)

    def connect(self) -> socket.socket:
        """Returns the connection to the process, which starts at the first call."""
        if not self.connection:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            number = theirs.fileno()
            with contextlib.ExitStack() as unused, theirs:
                unused.callback(ours.close)
                self.process = _Popen(  # In a quick session, this skips the test.
                    [sys.executable, "-m", "tests.support.fork_server", str(number)],
                    pass_fds=[number],
                    stdin=subprocess.DEVNULL,
                )
                unused.pop_all()
            self.connection = ours
        return self.connection


_SERVER = _Server()


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


def _forked(request: bytes, streams: list[int]) -> int:
    """Returns the process id of a new process, which is prepared and a child of this one."""
    connection = _SERVER.connect()
    read, prepared = os.pipe()
    with open(read, "rb") as pipe:
        with _adopting():
            socket.send_fds(connection, [request], [*streams, prepared])
            answer = connection.recv(64)
        os.close(prepared)
        assert answer, "the fork server has ended"
        pipe.read()  # Until the child closes its end.
    return int(answer)


def _program(args) -> list[str]:
    """Returns what follows the interpreter if it is a program to fork, else an empty list."""
    if not isinstance(args, list | tuple) or args[0] != sys.executable or len(args) < 2:
        return []
    _, *rest = map(os.fspath, args)
    if rest[0] == "-m" and rest[1] in _MODULES:
        return rest
    return rest if os.path.relpath(rest[0]) in _SCRIPTS else []


def _pickled(function) -> bytes | None:
    with contextlib.suppress(AttributeError, pickle.PicklingError):
        return pickle.dumps(function)
    return None


class SharingPopen(subprocess.Popen):
    """A Popen that forks the program's own processes from the server, as children of this one.

    It starts others as ever, also those with options that a fork does not take.
    """

    def _execute_child(self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, *rest):
        # What subprocess calls them: p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite.
        pipes = rest[3:9]
        *_, umask, start_new_session, process_group = rest
        environment = dict(os.environ if env is None else env)
        program, preexec = _program(args), _pickled(preexec_fn)
        shell = rest[2]
        shared = (
            program
            and preexec
            and not (executable or pass_fds or shell)
            and umask == process_group == -1
            and _read_at_import(environment) == _SERVER.environment
        )
        if not shared:
            super()._execute_child(
                args, executable, preexec_fn, close_fds, pass_fds, cwd, env, *rest
            )
            return
        is_module = program[0] == "-m"
        request = {
            "arguments": program[1:] if is_module else program,
            "is_module": is_module,
            "environment": environment,
            "folder": os.getcwd() if cwd is None else os.path.abspath(cwd),
            "preexec": preexec,
            "start_new_session": start_new_session,
        }
        streams = [pipes[0], pipes[3], pipes[5]]
        descriptors = [own if given == -1 else given for own, given in enumerate(streams)]
        try:
            self.pid = _forked(pickle.dumps(request), descriptors)
            self._child_created = True
        finally:
            self._close_pipe_fds(*pipes)


def share(connection: socket.socket | None = None) -> None:
    """Makes this process fork its starts of the program from the server at `connection`.

    A server of its own starts at the first such start if none is given.
    """
    if sys.platform == "linux":
        _SERVER.connection = connection
        subprocess.Popen = SharingPopen


def remember_environment() -> None:
    """Takes this process's environment as the one to share; others start by themselves.

    Must be called after the modules of tests are imported, because they set variables, and before
    the first test, because tests set variables for a while.
    """
    _ = _SERVER.environment


@contextmanager
def starts_of_their_own() -> Iterator[None]:
    """Lets processes that start in this context import all themselves."""
    before, subprocess.Popen = subprocess.Popen, _Popen
    try:
        yield
    finally:
        subprocess.Popen = before
