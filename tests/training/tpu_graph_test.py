"""TensorFlow's own TPUStrategy traces what the program runs on TPUs; no TPU has run it.

Nothing is false but the list of devices. What is traced cannot be executed without a TPU, so that
the tests look at the graph: what a replica computes there carries `_tpu_replicate`.
"""

import collections

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import kernels

from tests.support.configs import parsed
from trainer.config import augment_list
from trainer.data import pipeline
from trainer.data.in_memory import InMemoryDataset
from trainer.distributed.strategy import is_tpu
from trainer.nn.losses import TrainingLoss
from trainer.run_dir.training_data import TrainingData
from trainer.schedule.realize import BatchLimits
from trainer.training import micro_batch_search, setup
from trainer.training.averaging import ModelAverage
from trainer.training.evaluation import Evaluator
from trainer.training.step import TrainingStep

Device = collections.namedtuple("Device", ["name", "device_type"])
ON_TPU = ["--strategy=tpu", "--tpu=local", "--precision=bfloat16"]
MAIN = "<main>"
# Of the replication itself: TensorFlow's pass for TPUs replaces them.
REPLICATION = {"TPUReplicateMetadata", "TPUReplicatedInput", "CrossReplicaSum"}
# XLA_CPU_JIT's kernels are those of XLA_TPU_JIT but for what is a TPU's alone.
COMPILER = "XLA_CPU_JIT"


class Resolver(tf.distribute.cluster_resolver.TPUClusterResolver):
    """Resolver of a machine with `cores` TPU cores."""

    def __init__(self, cores):
        super().__init__(tpu="local")
        self._cores = cores

    def get_tpu_system_metadata(self):
        host = "/job:localhost/replica:0/task:0/device"
        tpus = [Device(f"{host}:TPU:{i}", "TPU") for i in range(self._cores)]
        return tf.tpu.experimental.TPUSystemMetadata(
            num_cores=self._cores,
            num_hosts=1,
            num_of_cores_per_host=self._cores,
            topology=None,
            devices=[*tpus, Device(f"{host}:CPU:0", "CPU")],
        )


def built(name, cores, shape):
    """The strategy and the model of a run with --strategy=tpu."""
    config = parsed(*ON_TPU, f"--model={name}")
    strategy = tf.distribute.TPUStrategy(Resolver(cores))
    assert is_tpu(strategy)
    channels = shape[-1]
    data = TrainingData(1024, shape, 10, (127.0,) * channels, (64.0,) * channels)
    return strategy, setup.build(config, data, strategy)


def step_of(strategy, model):
    """Returns a step that averages the parameters, which adds to what a replica computes."""
    average = ModelAverage(strategy, model, decay=0.9, base_batch_size=128)
    return TrainingStep(
        strategy,
        model,
        optimizer="momentum",
        weight_decay=1e-4,
        loss=TrainingLoss(label_smoothing=0.1),
        seed=0,
        timed=False,
        average=average,
    )


def source(shape):
    return InMemoryDataset(
        np.zeros((300, *shape), np.uint8), np.zeros(300, np.int64), tuple("0123456789"), "none"
    )


def batches(strategy, shape, size):
    replicas = strategy.num_replicas_in_sync
    return iter(
        pipeline.training(
            pipeline.ExampleStream(source(shape), augment_list.parse("none"), 0),
            position=0,
            micro_batch_size=size,
            replicas=replicas,
            local_replicas=range(replicas),
        )
    )


def functions(graph):
    """The operations of the graph's functions, by name, and its own as MAIN."""
    definition = graph.as_graph_def(add_shapes=True)
    library = {f.signature.name: list(f.node_def) for f in definition.library.function}
    return {**library, MAIN: list(definition.node)}


def clusters(library):
    """Returns the function and the operations of each computation of the replicas."""
    found = {}
    for name, nodes in library.items():
        for node in nodes:
            if "_tpu_replicate" in node.attr:
                found.setdefault((name, node.attr["_tpu_replicate"].s), []).append(node)
    return [(name, nodes) for (name, _), nodes in found.items()]


def count(nodes, op):
    return sum(node.op == op for node in nodes)


def called(library, nodes):
    """The functions that operations call, and that those call in their turn."""
    found, front = set(), list(nodes)
    while front:
        attributes = front.pop().attr.values()
        names = {v.func.name for v in attributes} | {
            f.name for v in attributes for f in v.list.func
        }
        new = (names & library.keys()) - found
        found |= new
        front += [node for name in new for node in library[name]]
    return found


def check_compiles(library, nodes):
    """Checks that replicas compute only tensors of known shapes by operations that XLA compiles."""
    inner = [node for name in called(library, nodes) for node in library[name]]
    for node in [*nodes, *inner]:
        types = {t for v in node.attr.values() for t in (v.type, *v.list.type)}
        assert not types & {tf.float64.as_datatype_enum, tf.string.as_datatype_enum}, node
        for shape in node.attr["_output_shapes"].list.shape:
            assert not shape.unknown_rank, node
            assert all(dimension.size >= 0 for dimension in shape.dim), node
    tf.function(tf.identity, jit_compile=True)(0.0)  # Or XLA has not told its operations.
    for op in {node.op for node in [*nodes, *inner]} - REPLICATION:
        registered = kernels.get_registered_kernels_for_op(op).kernel
        assert COMPILER in {kernel.device_type for kernel in registered}, op


@pytest.mark.parametrize(
    ("name", "cores", "shape"),
    [("wide_resnet_10_1", 8, (28, 28, 1)), ("resnet_50", 2, (64, 64, 3))],
)
def test_the_real_step_is_traced(name, cores, shape):
    strategy, model = built(name, cores, shape)
    step = step_of(strategy, model)
    function = step._compile(batches(strategy, shape, 64))
    library = functions(function.get_concrete_function().graph)
    assert step.traces == 1
    # One computation adds a micro-batch, in the loop over those of an update; another one updates,
    # in the loop over the stretch, and there alone do replicas meet: once, with all that is summed.
    (adding, forward), (updating, update) = sorted(
        clusters(library), key=lambda cluster: count(cluster[1], "CrossReplicaSum")
    )
    for nodes in (forward, update):
        assert count(nodes, "TPUReplicateMetadata") == 1
        check_compiles(library, nodes)
    norms = [layer for layer in model._flatten_layers() if "moving_mean" in vars(layer)]
    summed = len(model.trainable_variables) + 2 * len(norms) + 3
    assert count(forward, "CrossReplicaSum") == 0
    assert count(update, "CrossReplicaSum") == summed
    reduced = {node.name for node in update if node.op == "CrossReplicaSum"}
    assert not [n for n in update if n.op == "CrossReplicaSum" and reduced & {*n.input}]
    (stretch,) = [node for node in library[MAIN] if node.op == "While"]
    assert stretch.attr["body"].func.name == updating
    (accumulation,) = [node for node in library[updating] if node.op == "While"]
    assert accumulation.attr["body"].func.name == adding
    # A micro-batch a core, made by the host.
    host = [node for node in library[adding] if node.op == "IteratorGetNext"]
    assert len(host) == cores
    assert not any("_tpu_replicate" in node.attr for node in host)
    # bfloat16, and ghost batch norm in the form for TPUs.
    convolutions = [node for node in forward if node.op.startswith("Conv2D")]
    assert {node.attr["T"].type for node in convolutions} == {tf.bfloat16.as_datatype_enum}
    assert not [node for node in forward if "FusedBatchNorm" in node.op]


@pytest.fixture
def made(monkeypatch):
    """All that is made a tf.function of from now on, by its name."""
    found, real = {}, tf.function

    def keeping(function=None, **options):
        if function is None:
            return lambda function: keeping(function, **options)
        found[function.__name__] = real(function, **options)
        return found[function.__name__]

    monkeypatch.setattr(tf, "function", keeping)
    return found


def traced(function):
    (concrete,) = function._list_all_concrete_functions()
    return functions(concrete.graph)


def test_an_evaluation_is_traced(made):
    shape = (28, 28, 1)
    strategy, model = built("wide_resnet_10_1", 8, shape)
    evaluate = Evaluator(strategy, model, source(shape)).evaluate
    with pytest.raises(tf.errors.InvalidArgumentError, match="TPUReplicate"):
        evaluate(lambda: False)
    library = traced(made["_add_rounds"])
    ((_, nodes),) = clusters(library)
    check_compiles(library, nodes)
    assert count(nodes, "CrossReplicaSum") == 0


def test_the_measuring_of_micro_batches_is_traced(made, monkeypatch, tmp_path):
    shape = (28, 28, 1)
    strategy, model = built("wide_resnet_10_1", 2, shape)
    step = step_of(strategy, model)

    def choose():
        micro_batch_search.choose(
            tmp_path / "micro_batch.json",
            lambda: step,
            lambda _, size: batches(strategy, shape, size),
            replicas=step.strategy.num_replicas_in_sync,
            limits=BatchLimits(128, 1024, 0),
            ghost_batch_size=32,
            model="wide_resnet_10_1",
            before=[],
        )

    with pytest.raises(tf.errors.InvalidArgumentError, match="TPUReplicate"):
        choose()
    library = traced(made["accumulate"])
    ((_, nodes),) = clusters(library)
    check_compiles(library, nodes)
    assert count(nodes, "CrossReplicaSum") == 0
    monkeypatch.setattr(micro_batch_search, "_rate", lambda *_: 1.0)
    with pytest.raises(tf.errors.InvalidArgumentError, match="TPUReplicate"):
        choose()  # Where sums are emptied again.
