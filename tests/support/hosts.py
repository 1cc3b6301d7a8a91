"""Hosts with a network between them, on this machine: network namespaces joined by a bridge."""

import contextlib
import ctypes
import functools
import itertools
import json
import os
import secrets
import shutil
import subprocess

from tests.support.runs import command

_CLONE_NEWNET = 0x40000000  # Defined in <linux/sched.h>.
_COUNT = itertools.count()
_LIBC = ctypes.CDLL(None)


def ip(*words):
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


def allowed():
    """Whether this process may make network namespaces."""
    if not shutil.which("ip"):
        return False
    name = f"crescendo-{os.getpid()}"
    with contextlib.suppress(subprocess.CalledProcessError):
        ip("netns", "add", name)
        ip("netns", "del", name)
        return True
    return False


def _enter(host, core):
    """Puts this process into a host's namespace, and on one core."""
    with open(f"/run/netns/{host}") as namespace:
        assert _LIBC.setns(namespace.fileno(), _CLONE_NEWNET) == 0
    os.sched_setaffinity(0, {core})


class Network:
    """Network of n hosts; `switch` and each host are namespaces."""

    def __init__(self, n):
        own = f"crescendo-{os.getpid()}-{next(_COUNT)}"
        self.switch, self.hosts = f"{own}-switch", [f"{own}-{i}" for i in range(n)]
        self.addresses = [f"10.7.0.{i + 1}:8470" for i in range(n)]
        self.secret = secrets.token_hex(32)

    def __enter__(self):
        for name in (self.switch, *self.hosts):
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        ip("-n", self.switch, "link", "add", "bridge", "type", "bridge")
        ip("-n", self.switch, "link", "set", "bridge", "up")
        for i, host in enumerate(self.hosts):
            there = f"to{i}"
            peer = ("peer", "name", "eth0", "netns", host)
            ip("-n", self.switch, "link", "add", there, "type", "veth", *peer)
            ip("-n", self.switch, "link", "set", there, "master", "bridge", "up")
            ip("-n", host, "addr", "add", f"10.7.0.{i + 1}/24", "dev", "eth0")
            ip("-n", host, "link", "set", "eth0", "up")
        return self

    def __exit__(self, *_):
        for name in (self.switch, *self.hosts):
            ip("netns", "del", name)

    def cut(self, i):
        """Takes the link of a host down."""
        ip("-n", self.hosts[i], "link", "set", "eth0", "down")

    def bytes_sent(self, i):
        """Returns the bytes that a host has sent since it was made."""
        (link,) = json.loads(ip("-n", self.hosts[i], "-s", "-j", "link", "show", "eth0"))
        return link["stats64"]["tx"]["bytes"]

    def started(self, n, model_dir, *arguments):
        """A worker on each of the first n hosts, with a core each where there are as many."""
        cores = sorted(os.sched_getaffinity(0))
        found = []
        for i in range(n):
            task = {"type": "worker", "index": i}
            config = json.dumps({"cluster": {"worker": self.addresses[:n]}, "task": task})
            process = subprocess.Popen(
                command(model_dir, "--strategy=multi_worker", *arguments),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
                preexec_fn=functools.partial(_enter, self.hosts[i], cores[i % len(cores)]),
                env=os.environ | {"TF_CONFIG": config, "CRESCENDO_SECRET": self.secret},
            )
            found.append(process)
        return found
