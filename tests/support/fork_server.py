"""A process that has imported the program and TensorFlow, and forks one that runs it on request.

The imports of a run take 6 s of a core. This process imports once, and does not initialise
TensorFlow, whose threads would be missing in a child. A request is one message with four
descriptors. Three become the child's stdin, stdout and stderr, and the child closes the last when
it is prepared. The answer is the child's process id. The process between this one and the child
ends at once, so that the child's parent is the process that asks, if that one is a subreaper.
"""

import ctypes
import gc
import importlib
import io
import json
import os
import pickle
import runpy
import signal
import socket
import sys
from typing import Any

from absl import logging

# What the commands import that need TensorFlow.
_IMPORTED = (
    "tensorflow",
    "keras",
    "matplotlib.pyplot",
    "matplotlib.backends.backend_agg",
    "numpy.random",
    "tensorboard",
    "trainer.commands.train",
    "trainer.commands.evaluate",
    "trainer.reports.class_plots",
    "trainer.run_dir.metrics_writer",
    "trainer.training.loop",
    "trainer.training.run",
)
_MESSAGE_BYTES = 2**17
_PR_SET_NAME = 15  # Defined in <linux/prctl.h>.
# Signals to a process group of which this process happens to be a member.
_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _import_program() -> None:
    gc.set_threshold(100_000)
    os.environ["KERAS_BACKEND"] = "tensorflow"
    logging.use_absl_handler()  # As main.entry does, before TensorFlow looks for a handler.
    importlib.import_module("numpy")
    threads = len(os.listdir("/proc/self/task"))  # numpy's own may be among them: they restart.
    for name in _IMPORTED:
        importlib.import_module(name)
    # Imports the modules of all of TFDS's sets, as the first search for a set does.
    importlib.import_module("tensorflow_datasets").builder_cls("fashion_mnist")
    assert len(os.listdir("/proc/self/task")) <= threads, "TensorFlow has started threads"
    gc.freeze()  # So that the children's collections do not copy what they share.


def _fork() -> int:
    """Returns 0 in a child whose parent has ended, and the child's process id in this process."""
    read, write = os.pipe()
    ready, reparented = os.pipe()
    between = os.fork()
    if between == 0:
        child = os.fork()
        if child == 0:
            for each in (read, write, reparented):
                os.close(each)
            os.read(ready, 1)  # Ends when this process has its new parent.
            os.close(ready)
            return 0
        os.write(write, str(child).encode())
        os._exit(0)
    os.close(write)
    os.close(ready)
    os.waitpid(between, 0)
    os.close(reparented)
    with open(read, "rb") as pipe:
        return int(pipe.read())


def _make_streams() -> None:
    """Makes sys.stdin, stdout and stderr as Python does at its start.

    The server's own know whether they can seek, of other files than those of the child.
    """
    unbuffered = sys.stdout.write_through
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        before = getattr(sys, name)
        mode, buffering = ("wb", 0 if unbuffered else -1) if descriptor else ("rb", -1)
        raw = open(descriptor, mode, buffering, closefd=False)  # noqa: SIM115
        stream = io.TextIOWrapper(
            raw,
            before.encoding,
            before.errors,
            newline="\n" if descriptor else None,
            line_buffering=name == "stderr" or os.isatty(descriptor),
            write_through=unbuffered,
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _become(request: dict[str, Any], descriptors: list[int]) -> None:
    """Runs a module or a file as Python does, with its arguments, environment and streams."""
    *streams, prepared = descriptors
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    _make_streams()
    if request["start_new_session"]:
        os.setsid()
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    paths = request["environment"].get("PYTHONPATH", "")
    program, *arguments = request["arguments"]
    # A module finds its neighbours in the working folder, and a script in its own.
    first = request["folder"] if request["is_module"] else os.path.dirname(os.path.abspath(program))
    sys.path[0:1] = [first, *filter(None, paths.split(os.pathsep))]
    sys.argv = [program, *arguments]
    if prepare := pickle.loads(request["preexec"]):
        prepare()
    _name(request["environment"].get("TF_CONFIG"))
    # Before a fork, because the process that asked waits until all copies are closed.
    os.close(prepared)
    if not request["is_module"] or arguments[:1] == ["sweep"]:
        _share_with_children()
    if request["is_module"]:
        runpy.run_module(program, run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(program, run_name="__main__")


def _name(tf_config: str | None) -> None:
    """Names this process worker0:8470, for example: /proc shows the server's own environment."""
    if tf_config:
        config = json.loads(tf_config)
        index = config["task"]["index"]
        _, _, port = config["cluster"]["worker"][index].rpartition(":")
        ctypes.CDLL(None).prctl(_PR_SET_NAME, f"worker{index}:{port}".encode(), 0, 0, 0)


def _share_with_children() -> None:
    """Makes this process fork its runs, too, from a copy of itself that serves this process."""
    from tests.support import forked_process

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork() == 0:
        ours.close()
        null = os.open(os.devnull, os.O_RDWR)
        for number in range(3):
            os.dup2(null, number)
        serve(theirs)
        sys.exit()
    theirs.close()
    forked_process.share(ours)


def serve(connection: socket.socket) -> None:
    """Answers requests until the other end is closed."""
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in _IGNORED}
    while True:
        request, descriptors, _, _ = socket.recv_fds(connection, _MESSAGE_BYTES, 4)
        if not request:
            return
        child = _fork()
        if child == 0:
            connection.close()
            for number, handler in handlers.items():
                signal.signal(number, handler)
            _become(pickle.loads(request), descriptors)
            return
        for descriptor in descriptors:
            os.close(descriptor)
        connection.send(str(child).encode())


if __name__ == "__main__":
    _import_program()
    serve(socket.socket(fileno=int(sys.argv[1])))
