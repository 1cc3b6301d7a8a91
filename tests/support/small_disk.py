"""A small file system to fill up, which is visible only to processes that join its namespaces."""

import contextlib
import ctypes
import functools
import os
import pathlib
import subprocess

import pytest

# Mounts the disk on $1 in namespaces of this process, which keeps them until its stdin is closed.
_MOUNT = 'mount -t tmpfs -o size=4m none "$1" && echo mounted && exec cat'


def allowed():
    """Whether this process may mount in a namespace of its own."""
    return subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode == 0


needs_mounts = pytest.mark.skipif(
    not allowed(), reason="needs the right to mount in a namespace of its own"
)


def _join(pid):
    """Puts this process into the namespaces of the process `pid`, in the folder where it is."""
    here, library = os.getcwd(), ctypes.CDLL(None, use_errno=True)
    for name in ("user", "mnt"):
        with open(f"/proc/{pid}/ns/{name}") as namespace:
            assert library.setns(namespace.fileno(), 0) == 0, os.strerror(ctypes.get_errno())
    os.chdir(here)


class SmallDisk:
    """A disk of 4 MiB that is mounted on `folder`.

    Attributes:
      path: `folder` as a process outside sees it.
      join: prepares a process that sees the disk at `folder`, as `preexec_fn`.
    """

    def __init__(self, folder):
        folder.mkdir()
        line = ["unshare", "-rm", "sh", "-c", _MOUNT, "-", folder]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._holder = subprocess.Popen(line, text=True, **pipes)
        assert self._holder.stdout.readline() == "mounted\n"
        pid = self._holder.pid
        self.path = pathlib.Path(f"/proc/{pid}/root{folder}")
        self.join = functools.partial(_join, pid)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._holder.communicate()

    def fill(self, leaving=0):
        """Fills the disk, except for some bytes."""
        file = self.path / "fill"
        with contextlib.suppress(OSError), open(file, "ab", buffering=0) as rest:
            while True:
                rest.write(bytes(2**12))
        os.truncate(file, file.stat().st_size - leaving)

    def empty(self):
        """Deletes what fills the disk."""
        (self.path / "fill").unlink()
