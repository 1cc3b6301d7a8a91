"""Traces a recipe's update to StableHLO on a CPU, for the compiler of another device.

It traces the trainer's own code: the model from `setup.build`, with the ghost batch norm of
accelerators, and ReplicaStep's `accumulate` and `apply`, with one all-reduce of each sum over all
devices. The accumulation is a loop. Its length, the learning rate, the momentum and the batch size
are arguments, so that one program serves all phases with the same micro-batch.

A run on the devices differs from this program:

- A run has several programs, such as accumulate and apply, which the host calls in turn. This
  program does the work of all. It needs as much memory as the largest of them, because parameters,
  slots and sums stay on the device.
- In a run, the host sends micro-batches to the device. In this program, two micro-batches lie on
  the device, and the loop alternates between them. With only one, the compiler would see that all
  passes are equal, and compute only one.
- A run's TensorFlow has special kernels for some operations on TPUs. The CPU wheel lacks them, so
  this program has the kernels of XLA on CPUs. The compiler is newer than that of a run.
- A run also evaluates, by another program, which is smaller.
- All layers train, at one rate, and each example has one label and the weight 1: see `left_out`.
"""

import dataclasses
import re
from typing import Any

import tensorflow as tf
from tensorflow.compiler.tf2xla.ops import gen_xla_ops
from tensorflow.python.distribute import one_device_strategy

from trainer.config import augment_list
from trainer.config.flags import Config
from trainer.data import image_listing
from trainer.data.tfds import prepare, records
from trainer.errors import UserError
from trainer.nn.losses import Loss, TrainingLoss
from trainer.run_dir.training_data import TrainingData
from trainer.training import setup
from trainer.training.averaging import ModelAverage
from trainer.training.step import TrainingStep

_ALIAS = re.compile(
    r"parameter_index = array<i64>, parameter_number = (\d+) : i64\}, "
    r"output_index = array<i64: (\d+)>"
)


class _Extended(one_device_strategy.OneDeviceExtended):
    """One of `replicas` devices, traced on the CPU; sums over them are XLA's all-reduces."""

    def __init__(self, strategy: tf.distribute.Strategy, replicas: int) -> None:
        super().__init__(strategy, "CPU:0")
        self.replicas = replicas

    @property
    def _num_replicas_in_sync(self) -> int:
        return self.replicas

    @property
    def worker_devices(self) -> tuple[str, ...]:
        return ("/device:TPU:0",)  # This name selects the trainer's code for accelerators.

    def _reduce_to(self, reduce_op: Any, value: tf.Tensor, *_: Any) -> tf.Tensor:
        assert reduce_op == tf.distribute.ReduceOp.SUM
        return gen_xla_ops.xla_all_reduce(
            input=value,
            group_assignment=[list(range(self.replicas))],
            reduce_op="Add",
            mode="CrossReplica",
        )


class _Device(tf.distribute.Strategy):
    """Strategy of one of the replicas."""

    def __init__(self, replicas: int) -> None:
        super().__init__(_Extended(self, replicas))


def training_data(config: Config, examples: int) -> TrainingData:
    """Returns the description of the recipe's data, without the data and without normalization.

    Raises:
      UserError: if the dataset does not exist, or its images have no fixed size.
    """
    if image_listing.is_listed(config.dataset):
        names = image_listing.classes(config.dataset, config.train_split)
        classes, shape = len(names), (None, None, 3)
    else:
        builder = prepare.find_builder(config.dataset, config.data_dir)
        image, label = records.supervised_features(builder, config.dataset)
        classes, shape = label.num_classes, image.shape
    h, w, c = shape
    side = config.loaded_image_size  # Of all sizes of --image_sizes, the largest needs most memory.
    h, w = side or h, side or w
    if h is None or w is None:
        raise UserError(f"{config.dataset}'s images have no fixed size: give --image_size=N.")
    return TrainingData(examples, (h, w, c), classes, (0.0,) * c, (1.0,) * c)


def training_step(config: Config, data: TrainingData, replicas: int) -> TrainingStep:
    """Returns the training step of a run on `replicas` devices.

    Raises:
      UserError: if the model does not exist.
    """
    side = config.loaded_image_size
    in_training = dataclasses.replace(config, image_size=side, image_sizes=(), eval_image_size=None)
    return step_on(_Device(replicas), in_training, data)


def step_on(strategy: tf.distribute.Strategy, config: Config, data: TrainingData) -> TrainingStep:
    """Returns the training step of `config` on `strategy`, without what `left_out` names."""
    model, average = setup.build(config, data, strategy), None
    if config.ema_decay is not None:
        average = ModelAverage(
            strategy, model, decay=config.ema_decay, base_batch_size=config.base_batch_size
        )
    return TrainingStep(
        strategy,
        model,
        optimizer=config.optimizer,
        weight_decay=config.weight_decay,
        clip_norm=config.clip_norm,
        loss=TrainingLoss(Loss.from_config(config), config.label_smoothing),
        seed=config.seed,
        average=average,
    )


def left_out(config: Config) -> list[str]:
    """Returns the flags of a recipe that the traced update does not have."""
    changed = ("freeze", "layer_decay", "class_weights")
    found = [f"--{name}" for name in changed if getattr(config, name) != getattr(Config(), name)]
    named = augment_list.names_in(config.augment)
    return [*found, *(f"--augment={name}" for name in ("mixup", "cutmix") if name in named)]


@dataclasses.dataclass(frozen=True)
class TracedUpdate:
    """One replica's update, as a function for XLA.

    Attributes:
      text: StableHLO. Its arguments are those of `update_arguments`, and then the `captured` ones.
      captured: tensors and variables that the update reads; it changes the variables.
    """

    text: str
    captured: list[Any]


def lowered(step: TrainingStep, micro_batch_size: int) -> str:
    """Returns one replica's update as StableHLO."""
    return traced(step, micro_batch_size).text


def update_arguments(step: TrainingStep, micro_batch_size: int) -> dict[str, tf.TensorSpec]:
    """Returns the names and shapes of the arguments of an update, in their order.

    The update computes `accumulation` micro-batches, the two of `images` in turn, from `position`.
    """
    shape, number = step.model.input_shape[1:], tf.TensorSpec([], tf.float32)
    columns = len(step.starts) + (step.average is not None)
    return {
        "images": tf.TensorSpec([2, micro_batch_size, *shape], tf.uint8),
        "labels": tf.TensorSpec([2, micro_batch_size], tf.int64),
        "position": tf.TensorSpec([], tf.int64),
        "accumulation": tf.TensorSpec([], tf.int32),
        "learning_rate": number,
        "momentum": number,
        "batch_size": number,
        "statistics_weights": tf.TensorSpec([columns], tf.float32),
    }


def traced(step: TrainingStep, micro_batch_size: int) -> TracedUpdate:
    """Traces one replica's update."""

    @tf.function(jit_compile=True)
    def update(
        images: tf.Tensor,
        labels: tf.Tensor,
        position: tf.Tensor,
        accumulation: tf.Tensor,
        learning_rate: tf.Tensor,
        momentum: tf.Tensor,
        batch_size: tf.Tensor,
        statistics_weights: tf.Tensor,
    ) -> tf.Tensor:
        done = tf.constant(0)
        while done < accumulation:  # XLA needs the length of tf.range when it compiles.
            first = position + tf.cast(done, tf.int64) * micro_batch_size
            batch = images[done % 2], labels[done % 2], first
            step.strategy.run(step.replica.accumulate, batch)
            done += 1
        arguments = learning_rate, momentum, batch_size, statistics_weights
        return step.strategy.run(step.replica.apply, arguments)

    specifications = update_arguments(step, micro_batch_size).values()
    text = for_jax(
        update.experimental_get_compiler_ir(*specifications)(stage="stablehlo", platform_name="CPU")
    )
    function = update.get_concrete_function(*specifications)
    handles = {id(variable.handle): variable for variable in function.graph.variables}
    tensors = [each for each in function.captured_inputs if id(each) not in handles]
    variables = [handles[id(each)] for each in function.captured_inputs if id(each) in handles]
    return TracedUpdate(text, [*tensors, *variables])


def for_jax(text: str) -> str:
    """Converts TensorFlow's StableHLO to the form that JAX accepts.

    A variable's new value takes the old value's place in memory. TensorFlow states the places in
    the module's head, and JAX expects each at its argument. Copies in TensorFlow's own dialect
    become reshapes.
    """
    text = re.sub(
        r"mhlo\.copy (%\S+) : (tensor<[^>]*>)", r"stablehlo.reshape \1 : (\2) -> \2", text
    )
    head = re.search(r"^module @\S+ attributes \{(.*)\} \{$", text, re.MULTILINE)
    main = re.search(r"^ *func\.func @main\(.*$", text, re.MULTILINE)
    if not head or not main:
        raise RuntimeError(f"TensorFlow's StableHLO has an unexpected form: {text[:1000]}")
    places = dict(_ALIAS.findall(head[1]))

    def aliased(argument: re.Match[str]) -> str:
        place = places.get(argument[1])
        return argument[0] + (f" {{tf.aliasing_output = {place} : i32}}" if place else "")

    signature = re.sub(r"%arg(\d+): tensor<[^>]*>", aliased, main[0])
    module = head[0].replace(f" attributes {{{head[1]}}}", "")
    return text.replace(head[0], module, 1).replace(main[0], signature, 1)
