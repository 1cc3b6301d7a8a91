import os
import subprocess
import sys

import pytest
import tensorflow as tf

from trainer.distributed.strategy import connect, mirrored, on_cpu, share_cores
from trainer.errors import UserError

CONNECT = """
import tensorflow as tf
from trainer.distributed.strategy import connect, on_cpu
strategy, lanes = connect("auto", virtual_devices=4, deterministic=False, ghost_batch_size=32)
assert isinstance(strategy, tf.distribute.MirroredStrategy)
assert strategy.num_replicas_in_sync == 4
assert on_cpu(strategy)
print(lanes, tf.config.threading.get_intra_op_parallelism_threads())
"""


def test_auto_is_one_device_if_there_is_one(cpus):
    strategy, lanes = connect(
        "auto", virtual_devices=None, deterministic=False, ghost_batch_size=32
    )
    assert isinstance(strategy, tf.distribute.OneDeviceStrategy)
    assert on_cpu(strategy)
    assert lanes == share_cores(1, 32)[0]


def test_several_workers_are_refused_outside_training():
    with pytest.raises(
        UserError, match="--strategy=multi_worker works only with the commands train"
    ):
        connect("multi_worker", virtual_devices=None, deterministic=False, ghost_batch_size=32)


def test_auto_is_mirrored_over_virtual_devices():
    # This needs its own process, because TensorFlow creates its threads once.
    done = subprocess.run(
        [sys.executable, "-c", CONNECT], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(number) for number in share_cores(4, 32)]


@pytest.mark.parametrize(
    ("cores", "replicas", "ghost", "lanes", "threads"),
    [
        (1, 1, 32, 1, 1),
        (2, 1, 32, 2, 1),
        (2, 1, 128, 1, 2),
        (2, 1, 500, 1, 2),
        (2, 4, 32, 1, 1),
        (16, 1, 32, 4, 4),
        (16, 4, 32, 4, 1),
        (3, 1, 48, 2, 1),
    ],
)
def test_cores_make_lanes_and_threads(monkeypatch, cores, replicas, ghost, lanes, threads):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    assert share_cores(replicas, ghost) == (lanes, threads)


def test_strategies_of_several_sizes_work_in_one_process(cpus):
    for replicas in (2, 4, 3):
        strategy = mirrored(cpus[:replicas])

        @tf.function
        def total(strategy=strategy):
            def one():
                context = tf.distribute.get_replica_context()
                return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.constant(1.0))

            return strategy.experimental_local_results(strategy.run(one))

        assert [value.numpy() for value in total()] == [replicas] * replicas


def test_a_cpu_that_tensorflow_has_split_already_is_refused(cpus):
    assert len(cpus) == 4
    with pytest.raises(UserError, match=r"--virtual_devices=3 .* TensorFlow has already started"):
        connect("auto", virtual_devices=3, deterministic=False, ghost_batch_size=32)


def test_threads_that_stay_are_said(cpus, monkeypatch, logged):
    assert len(cpus) == 4  # TensorFlow has started.
    monkeypatch.setattr("trainer.distributed.strategy.share_cores", lambda *_: (1, 63))
    connect("one_device", virtual_devices=None, deterministic=False, ghost_batch_size=32)
    assert logged[0].startswith("TensorFlow had already started in this process")
