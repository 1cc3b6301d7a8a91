import contextlib
import gc
import math
import os
import resource

import numpy as np
import pytest
import tensorflow as tf

from trainer.errors import UserError
from trainer.system import memory
from trainer.system.tensorflow_errors import translate

CPU = ["/job:localhost/replica:0/task:0/device:CPU:0"]
MEMINFO = "MemTotal:       24684100 kB\nMemAvailable:   20000000 kB\nHugePages_Total:       0\n"
NOT_LIMITED = 9223372036854771712
LIMITS = ("memory.limit_in_bytes", "memory.max")


def v1(limit, taken, dropped=0):
    return {
        "memory.limit_in_bytes": limit,
        "memory.usage_in_bytes": taken,
        "memory.stat": f"cache 9547776\ninactive_file 4096\ntotal_inactive_file {dropped}",
    }


def v2(limit, taken, dropped=0):
    return {
        "memory.max": limit,
        "memory.current": taken,
        "memory.stat": f"anon 9547776\ninactive_file {dropped}\ntotal_inactive_file 1",
    }


@pytest.mark.parametrize(
    ("groups", "folders", "wanted"),
    [
        (None, {}, 20_480_000_000),
        ("0::/\n", {"": {"cgroup.procs": 1}}, 20_480_000_000),  # a machine's own root
        ("0::/\n", {"": v2(8_000_000, 5_000_000, 1_000_000)}, 4_000_000),  # a container
        ("0::/\n", {"": v2("max", 5_000_000)}, 20_480_000_000),
        (  # A limit of the slice holds for all that is in it.
            "0::/user.slice/job\n",
            {"user.slice": v2(9_000_000, 2_000_000), "user.slice/job": v2("max", 1_000_000)},
            7_000_000,
        ),
        (
            "4:memory:/job/step\n0::/\n",
            {
                "memory": v1(NOT_LIMITED, 10_000_000),
                "memory/job": v1(9_000_000, 3_000_000),
                "memory/job/step": v1(8_000_000, 3_000_000, 500_000),
            },
            5_500_000,
        ),
        (  # A container that sees its own as the root, under the path that its host knows.
            "9:name=systemd:/docker/ab\n4:cpu,memory:/docker/ab\n",
            {"memory": v1(6_000_000, 1_000_000)},
            5_000_000,
        ),
        ("0::/\n", {"": v2(8_000_000, 9_000_000)}, 0),
    ],
)
def test_what_is_left_of_the_machine_and_of_each_group(tmp_path, groups, folders, wanted):
    proc, root = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text(MEMINFO)
    if groups is not None:
        (proc / "self" / "cgroup").write_text(groups)
    for folder, files in folders.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (root / folder / name).write_text(f"{content}\n")
    assert memory.available(proc, root) == wanted
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [files[name] for files in folders.values() for name in LIMITS if name in files]
    assert memory.ram_limit(proc, root) == min(
        [machine, *(each for each in limits if each != "max")]
    )


def test_a_peak_is_of_what_came_after_the_restart():
    # Large beside what other tests' threads give back meanwhile, 64 MB once.
    for size in (1_600_000_000, 800_000_000):
        gc.collect()
        memory.reset_peak_memory(CPU)
        (before, *_) = memory.memory_usage(CPU)
        np.ones(size, np.uint8).sum()
        (after, *_) = memory.memory_usage(CPU)
        assert after.peak - before.now == pytest.approx(size, rel=0.1)
        assert after.now - before.now < size / 2
    with open("/proc/meminfo") as meminfo:
        total = int(meminfo.readline().split()[1]) * 1024
    assert after.now < after.limit < total


@contextlib.contextmanager
def address_space_limited_to(limit):
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def test_a_limited_address_space_counts_too():
    assert [use.limit == math.inf for use in memory.memory_usage(CPU)] == [False, True]
    with address_space_limited_to(2**46):
        resident, addresses = memory.memory_usage(CPU)
    assert addresses.limit == 2**46
    assert resident.now < addresses.now <= addresses.peak


def test_running_out_is_a_mistake_of_the_users():
    with (
        pytest.raises(UserError, match=r"^this does not fit in memory\.\ndo that$"),
        translate(memory.out_of_memory("this", "do that")),
    ):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
