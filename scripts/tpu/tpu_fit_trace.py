"""tpu_fit.py's first half: a recipe's update as StableHLO, which TensorFlow traces on a CPU.

What is traced is the trainer's own: the model as `classifier.build` makes it, with the ghost batch
norm of TPUs, and of TrainingStep what accumulates a micro-batch and what applies an update, with
one all-reduce of each sum over all cores. The accumulation is a loop, and k, ε, m and B are
arguments, so that one program does for all phases with one micro-batch.

What a run under TPUStrategy has otherwise:

- There, accumulating and applying may be two programs that the host calls in turn. Here, both are
  one; the memory is that of the larger either way, since parameters, slots and sums lie on the core
  throughout.
- There, the host feeds micro-batches. Here, two lie on the core, as one that is computed and one
  that is fed meanwhile, and the loop takes them in turn: of one alone, the compiler would see that
  all passes are the same, and do one.
- TensorFlow lowers for TPUs with kernels of its own for some operations, which the wheel for CPUs
  does not have; here it lowers as for a CPU under XLA. The compiler behind it is libtpu's in both,
  here of a newer version than tensorflow-tpu's.
- Evaluation, which is smaller, is another program.
"""

import re
from typing import Any

import tensorflow as tf
from tensorflow.compiler.tf2xla.ops import gen_xla_ops
from tensorflow.python.distribute import one_device_strategy

from trainer.config.flags import Config
from trainer.data import image_folder
from trainer.data.tfds import prepare, records
from trainer.errors import UserError
from trainer.run_dir.training_data import TrainingData
from trainer.training import setup
from trainer.training.step import TrainingStep

_ALIAS = re.compile(
    r"parameter_index = array<i64>, parameter_number = (\d+) : i64\}, "
    r"output_index = array<i64: (\d+)>"
)


class _Extended(one_device_strategy.OneDeviceExtended):
    """One device that stands for one of `replicas` cores: sums over them are XLA's all-reduces."""

    def __init__(self, strategy: tf.distribute.Strategy, replicas: int) -> None:
        super().__init__(strategy, "CPU:0")
        self.replicas = replicas

    @property
    def _num_replicas_in_sync(self) -> int:
        return self.replicas

    @property
    def worker_devices(self) -> tuple[str, ...]:
        return ("/device:TPU:0",)  # Or the model gets the kernels of CPUs.

    def _reduce_to(self, reduce_op: Any, value: tf.Tensor, *_: Any) -> tf.Tensor:
        assert reduce_op == tf.distribute.ReduceOp.SUM
        return gen_xla_ops.xla_all_reduce(
            input=value,
            group_assignment=[list(range(self.replicas))],
            reduce_op="Add",
            mode="CrossReplica",
        )


class _Core(tf.distribute.Strategy):
    """One replica of a slice's."""

    def __init__(self, replicas: int) -> None:
        super().__init__(_Extended(self, replicas))


def training_data(config: Config, examples: int) -> TrainingData:
    """What the model has to know of the data, which need not be prepared; pixels as they come.

    Raises:
      UserError: for a dataset that is none, or whose images have no size of their own.
    """
    if config.dataset.startswith(image_folder.PREFIX):
        root = config.dataset.removeprefix(image_folder.PREFIX)
        classes, shape = len(image_folder.classes(root, config.train_split)), (None, None, 3)
    else:
        builder = prepare.find_builder(config.dataset, config.data_dir)
        image, label = records.supervised_features(builder, config.dataset)
        classes, shape = label.num_classes, image.shape
    h, w, c = shape
    h, w = config.image_size or h, config.image_size or w
    if h is None or w is None:
        raise UserError(f"{config.dataset}'s images have no size of their own: pass --image_size.")
    return TrainingData(examples, (h, w, c), classes, (0.0,) * c, (1.0,) * c)


def training_step(config: Config, data: TrainingData, replicas: int) -> TrainingStep:
    """The step of a run on so many cores.

    Raises:
      UserError: where there is no such model.
    """
    strategy = _Core(replicas)
    return TrainingStep(
        strategy,
        setup.build(config, data, strategy),
        optimizer=config.optimizer,
        weight_decay=config.weight_decay,
        label_smoothing=config.label_smoothing,
        seed=config.seed,
    )


def lowered(step: TrainingStep, micro_batch_size: int) -> str:
    """One update of one replica, in TensorFlow's StableHLO."""
    shape = step.model.input_shape[1:]

    @tf.function(jit_compile=True)
    def update(
        images: tf.Tensor,  # uint8 [2, b, h, w, c]
        labels: tf.Tensor,  # [2, b]
        position: tf.Tensor,
        accumulation: tf.Tensor,
        learning_rate: tf.Tensor,
        momentum: tf.Tensor,
        batch_size: tf.Tensor,
        statistics_weights: tf.Tensor,  # [norms]
    ) -> tf.Tensor:
        done = tf.constant(0)
        while done < accumulation:  # tf.range would have to be of known length.
            first = position + tf.cast(done, tf.int64) * micro_batch_size
            step.strategy.run(step.accumulate, (images[done % 2], labels[done % 2], first))
            done += 1
        used = learning_rate, momentum, batch_size, statistics_weights
        return step.strategy.run(step.apply, used)

    number = tf.TensorSpec([], tf.float32)
    lowering = update.experimental_get_compiler_ir(
        tf.TensorSpec([2, micro_batch_size, *shape], tf.uint8),
        tf.TensorSpec([2, micro_batch_size], tf.int64),
        tf.TensorSpec([], tf.int64),
        tf.TensorSpec([], tf.int32),
        number,
        number,
        number,
        tf.TensorSpec([len(step.starts)], tf.float32),
    )
    return for_jax(lowering(stage="stablehlo", platform_name="CPU"))


def for_jax(text: str) -> str:
    """TensorFlow's StableHLO as JAX takes it.

    A variable's new value takes the place of its old one: TensorFlow says so of the module, by
    numbers of parameters and outputs, and JAX of the argument. Copies of TensorFlow's own dialect
    are dropped.
    """
    text = re.sub(
        r"mhlo\.copy (%\S+) : (tensor<[^>]*>)", r"stablehlo.reshape \1 : (\2) -> \2", text
    )
    head = re.search(r"^module @\S+ attributes \{(.*)\} \{$", text, re.MULTILINE)
    main = re.search(r"^ *func\.func @main\(.*$", text, re.MULTILINE)
    if not head or not main:
        raise RuntimeError(f"TensorFlow's StableHLO has another form: {text[:1000]}")
    places = dict(_ALIAS.findall(head[1]))

    def aliased(argument: re.Match[str]) -> str:
        place = places.get(argument[1])
        return argument[0] + (f" {{tf.aliasing_output = {place} : i32}}" if place else "")

    signature = re.sub(r"%arg(\d+): tensor<[^>]*>", aliased, main[0])
    module = head[0].replace(f" attributes {{{head[1]}}}", "")
    return text.replace(head[0], module, 1).replace(main[0], signature, 1)
