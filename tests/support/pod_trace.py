"""Traces the real step with TensorFlow's TPUStrategy on two hosts, and prints where it would run.

    python -m tests.support.pod_trace ADDRESS,ADDRESS

The hosts are real servers; only their TPU cores are invented, two for each, and CPUs hold the
variables. It prints a JSON object: the number of the host's iterator from which each replica takes
its micro-batch, and the number of reductions in the accumulation and in the update.
"""

import json
import sys

import numpy as np
import tensorflow as tf

from tests.support.configs import parsed
from tests.training.tpu_graph_test import Device, clusters, count, functions, step_of
from trainer.distributed import hosts, tpu, tpu_address
from trainer.distributed.strategy import is_tpu
from trainer.run_dir.training_data import TrainingData
from trainer.training import setup

CORES, SHAPE, NAME = 2, (28, 28, 1), "wide_resnet_10_1"


class Resolver(tf.distribute.cluster_resolver.TPUClusterResolver):
    """Resolver of two hosts with `CORES` TPU cores each."""

    def get_tpu_system_metadata(self):
        tasks = [f"/job:worker/replica:0/task:{task}/device" for task in range(2)]
        tpus = [Device(f"{task}:TPU:{i}", "TPU") for task in tasks for i in range(CORES)]
        cpus = [Device(f"{task}:CPU:0", "CPU") for task in tasks]
        return tf.tpu.experimental.TPUSystemMetadata(
            num_cores=2 * CORES,
            num_hosts=2,
            num_of_cores_per_host=CORES,
            topology=None,
            devices=[*tpus, *cpus],
        )


def main(addresses):
    """Traces the step, and returns what the docstring of the module describes."""
    on_hosts = ["--strategy=tpu", f"--tpu={addresses}", "--precision=bfloat16"]
    config = parsed(*on_hosts, f"--model={NAME}")
    tf.distribute.cluster_resolver.TPUClusterResolver = Resolver
    tf.tpu.experimental.initialize_tpu_system = lambda _: None
    strategy = tpu.connect(tpu_address.address(config))
    assert is_tpu(strategy)
    cores = strategy.extended._tpu_devices
    strategy.extended._tpu_devices = np.vectorize(lambda name: name.replace("TPU", "CPU"))(cores)
    data = TrainingData(1024, SHAPE, 10, (127.0,), (64.0,))
    step = step_of(strategy, setup.build(config, data, strategy))
    images = tf.data.Dataset.from_tensors(
        (tf.zeros([64, *SHAPE], tf.uint8), tf.zeros([64], tf.int32), tf.constant(0, tf.int64))
    ).repeat()
    iterators = []
    for host in hosts.from_strategy(strategy):
        with tf.device(host.device):
            iterators.append(iter(images))
    function = step._compile(tuple(iterators))
    library = functions(function.get_concrete_function().graph)
    (adding, forward), (_, update) = sorted(
        clusters(library), key=lambda cluster: count(cluster[1], "CrossReplicaSum")
    )
    taking = [node for node in library[adding] if node.op == "IteratorGetNext"]
    names = sorted({node.input[0] for node in taking}, key=[n.input[0] for n in taking].index)
    return {
        "iterators": [names.index(node.input[0]) for node in taking],
        "reductions": [count(nodes, "CrossReplicaSum") for nodes in (forward, update)],
        "parameters": len(step.parameters),
    }


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
