"""Every flag of the program, and the frozen Config that they become.

The only module that touches absl's FLAGS: all others take a Config or plain values.
A number that the user did not set is None, so that 0 is a value and can be refused. Every field of
Config is the flag of the same name.
"""

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags

from trainer import flagfile_tree, local_path
from trainer.regular_file import NotRegularError

# The order of examples that a new run has.
NEWEST_ORDER = 2
# Some of the flags that the flags.txt of every run names, of whatever version.
_IN_EVERY_RUN = frozenset(
    [
        "dataset",
        "train_split",
        "model",
        "augment",
        "epochs",
        "seed",
        "optimizer",
        "weight_decay",
        "base_learning_rate",
        "base_batch_size",
        "anneal",
        "anneal_with",
        "ghost_batch_size",
        "ghost_decay",
        "keep_checkpoints",
    ]
)


class ExitError(Exception):
    """What ends the program: one or two lines that say what it was and what to do.

    Attributes:
      status: of the process.
      above: lines that are shown above those two, such as a traceback of the user's own code.
    """

    status: int
    above: str = ""


class UserError(ExitError):
    """A mistake of the user's; its lines name the value and the remedy."""

    status = 2


@dataclasses.dataclass(frozen=True)
class Config:
    """What the user asked for, one field a flag; the units are in the flags' help below."""

    model_dir: str | None
    dataset: str
    data_dir: str | None
    train_split: str
    eval_split: str | None
    train_examples: int | None
    model: str
    image_size: int | None
    num_classes: int | None
    augment: str
    skip_bad_examples: bool
    max_image_pixels: int
    epochs: float
    seed: int
    order_version: int | None
    optimizer: str
    weight_decay: float
    label_smoothing: float
    base_learning_rate: float
    base_batch_size: int
    base_momentum: float | None
    scaling: str
    initial_learning_rate: float | None
    initial_batch_size: int | None
    momentum: float | None
    momentum_warmup_epochs: float
    momentum_from: float | None
    momentum_to: float | None
    anneal: str
    anneal_epochs: list[str]
    anneal_factor: float
    anneal_power: float
    anneal_with: str
    batch_anneals: int
    max_batch_size: int | None
    min_improvement: float
    patience: int
    cooldown: int
    max_anneals: int
    range_from: float
    range_to: float
    range_scale: str
    growth_threshold: float
    noise_horizon: int | None
    cycle_epochs: float
    min_learning_rate: float | None
    cycle_factor: float
    cycle_factor_per: str
    warmup_epochs: float
    warmup_from: float | None
    ghost_batch_size: int
    ghost_decay: float
    precision: str
    micro_batch_size: int
    strategy: str
    virtual_devices: int | None
    tpu: str | None
    tpu_zone: str | None
    tpu_project: str | None
    worker_timeout: float
    deterministic: bool
    checkpoint_minutes: float
    keep_checkpoints: int
    eval_every_epochs: float
    log_every_updates: int
    stop_at_epoch: float | None
    checkpoint: str
    export_dir: str | None
    format: str
    plot: str | None
    replicas: int | None
    hosts: int | None
    examples_per_second: float | None
    parameters: int | None
    link_bandwidth: float
    link_latency: float
    sweep: str | None
    sweep_part: str | None
    sweep_parallel: int
    sweep_retry: bool
    runs: list[str]
    output: str
    pictures: bool


# ---- The run directory and the data
flags.DEFINE_string("model_dir", None, "The run directory; the same one again resumes the run.")
flags.DEFINE_string(
    "dataset",
    "fashion_mnist",
    "A TFDS image-classification set, by its name; or image_folder:PATH, of PATH/train/cat/1.jpg.",
)
flags.DEFINE_string("data_dir", None, "Where TFDS sets lie (unset: TFDS's own default).")
flags.DEFINE_string("train_split", "train", "Examples to train on, in TFDS's split syntax.")
flags.DEFINE_string(
    "eval_split",
    None,
    "Examples to evaluate on, likewise (unset: test; of a folder, val, validation or test).",
)
flags.DEFINE_integer(
    "train_examples", None, "N, for `plan` where the data is not at hand, in examples."
)
flags.DEFINE_enum(
    "augment",
    "none",
    ["none", "medium", "strong", "imagenet"],
    "medium: 4-pixel shifts and flips; strong: also zoom by 0.75 to 1.25, rotation by up to 10 "
    "degrees, channel shift by up to 50 grey levels, random erasing of half of the images; "
    "imagenet: a part of 8% to 100% of the image, resized, and flips; evaluated on the middle.",
)
flags.DEFINE_bool(
    "skip_bad_examples",
    False,
    "Count, name and leave out what cannot be read or decoded; of TFDS's sets, ArrayRecord only.",
)
flags.DEFINE_integer(
    "max_image_pixels",
    178_956_970,
    "Width times height, in pixels, up to which an image is decoded; a larger one cannot be used.",
    lower_bound=1,
)

# ---- The model
flags.DEFINE_string(
    "model",
    "wide_resnet_10_1",
    "wide_resnet_<depth>_<width>, resnet_50, vgg_16, plain_9, a keras.applications name, "
    "inception_resnet_v2, or module:function returning a model.",
)
flags.DEFINE_integer("image_size", None, "Side of the images in pixels (unset: the dataset's own).")
flags.DEFINE_integer("num_classes", None, "Classes of the model (unset: the dataset's own).")
flags.DEFINE_integer("ghost_batch_size", 32, "G: examples that share batch-norm statistics.")
flags.DEFINE_float("ghost_decay", 0.99, "Decay of the moving statistics per ghost batch.")
flags.DEFINE_enum(
    "precision",
    None,
    ["float32", "bfloat16"],
    "Of layers and their outputs (unset: bfloat16 with --strategy=tpu, else float32); parameters, "
    "normalisation and loss are float32 always.",
)

# ---- The run and its optimizer
flags.DEFINE_float("epochs", 16.0, "Length of the run, in epochs.")
flags.DEFINE_integer("seed", 0, "Seed of everything: weights, order of examples, augmentation.")
flags.DEFINE_integer(
    "order_version",
    None,
    "Which order of examples and which keys of random layers the run has: 2, or 1, which repeats "
    "and which runs from before this flag have (unset: that of the run in --model_dir, or 2).",
)
flags.DEFINE_enum(
    "optimizer",
    "momentum",
    ["sgd", "momentum", "nesterov", "adam", "lars", "lamb"],
    "The optimizer; the momentum of adam and lamb is their beta1, and beta2 is 0.999.",
)
flags.DEFINE_float(
    "weight_decay",
    0.0,
    "Coupled L2 on all but biases and batch-norm weights (lamb: added to the normalised gradient).",
)
flags.DEFINE_float("label_smoothing", 0.0, "Probability spread evenly over all classes.")

# ---- The start: the tuned reference, and what the user fixes; the rest is solved (same noise
# scale)
flags.DEFINE_float("base_learning_rate", 0.1, "Learning rate of the tuned reference.")
flags.DEFINE_integer("base_batch_size", 128, "Batch size of the tuned reference, in examples.")
flags.DEFINE_float("base_momentum", None, "Momentum of the reference (unset: 0.9; 0 for sgd).")
flags.DEFINE_enum(
    "scaling",
    "linear",
    ["linear", "sqrt", "none"],
    "How the learning rate follows the batch at an equal noise scale: linear for SGD; sqrt is "
    "offered for adam and lamb; none: not at all.",
)
flags.DEFINE_float("initial_learning_rate", None, "Learning rate at the start (unset: solved).")
flags.DEFINE_integer(
    "initial_batch_size", None, "Batch size at the start, in examples (unset: solved)."
)
flags.DEFINE_float("momentum", None, "Momentum (unset: the reference's).")

flags.DEFINE_float(
    "momentum_warmup_epochs",
    0.0,
    "Epochs in which momentum and batch rise together from --momentum_from; noise scale and "
    "learning rate stay.",
)
flags.DEFINE_float(
    "momentum_from", None, "Momentum at which its warm-up begins (unset: the reference's)."
)
flags.DEFINE_float(
    "momentum_to",
    None,
    "Momentum down to which the annealing goes once the batch is largest, before the learning "
    "rate (unset: the momentum stays).",
)

# ---- How the noise scale comes down, and what realises it
flags.DEFINE_enum(
    "anneal",
    "constant",
    [
        "constant",
        "step",
        "cosine",
        "polynomial",
        "exponential",
        "cyclical",
        "plateau",
        "measured",
        "range_test",
    ],
    "How the noise scale comes down over the run; plateau: by a step of --anneal_factor whenever "
    "the evaluation stands still. measured: it stays, and the batch follows the gradient noise. "
    "range_test: what the command of that name does.",
)
flags.DEFINE_list(
    "anneal_epochs",
    [],
    "Points of `step`, or the one length in which `exponential` divides by --anneal_factor; "
    "in epochs, or in percents of the run: 30%,60%,80%.",
)
flags.DEFINE_float("anneal_factor", 5.0, "What one annealing step divides the noise scale by.")
flags.DEFINE_float("anneal_power", 2.0, "Power of `polynomial`: (1 - epochs / total) ** power.")
flags.DEFINE_enum(
    "anneal_with",
    "learning_rate",
    ["learning_rate", "hybrid", "batch_size"],
    "What realises the annealing: the learning rate alone; the batch for the first "
    "--batch_anneals steps of `step` or `plateau`; the batch, up to its maximum, throughout.",
)
flags.DEFINE_integer("batch_anneals", 1, "Annealing steps that `hybrid` gives to the batch.")
flags.DEFINE_integer(
    "max_batch_size",
    None,
    "B_max, in examples (unset: N/10, rounded down to whole smallest batches).",
)
flags.DEFINE_float(
    "min_improvement",
    0.0,
    "What top-1 has to gain on its best for `plateau` to count it, as a fraction: 0.001.",
)
flags.DEFINE_integer("patience", 3, "Evaluations in a row without improvement: a plateau.")
flags.DEFINE_integer("cooldown", 0, "Evaluations after a step that `plateau` does not count.")
flags.DEFINE_integer("max_anneals", 2, "Steps of `plateau`; the next plateau ends the run.")
flags.DEFINE_float("range_from", 1e-4, "Learning rate at the start of a range test.")
flags.DEFINE_float("range_to", 10.0, "Learning rate at the end of a range test.")
flags.DEFINE_enum(
    "range_scale", "geometric", ["geometric", "linear"], "How a range test raises the rate."
)
flags.DEFINE_float(
    "growth_threshold",
    2.0,
    "`measured` multiplies the batch by this once the gradient noise scale is as many times it.",
)
flags.DEFINE_integer(
    "noise_horizon",
    None,
    "Examples after which a measurement of the gradient noise counts 1/e (unset: N/4); `measured` "
    "decides as often.",
)
flags.DEFINE_float("cycle_epochs", 4.0, "Length of a whole cycle of `cyclical`, in epochs.")
flags.DEFINE_float(
    "min_learning_rate",
    None,
    "Trough of `cyclical`, whose peak is the initial learning rate (unset: a quarter of it).",
)
flags.DEFINE_float(
    "cycle_factor",
    1.0,
    "What each cycle multiplies the height of `cyclical` by: 1 is triangular, 0.5 triangular2, "
    "ln 2 = 0.693 gentler; with --cycle_factor_per=update, the base of exp_range.",
)
flags.DEFINE_enum(
    "cycle_factor_per",
    "cycle",
    ["cycle", "update"],
    "How often --cycle_factor multiplies; `update` means an update of the initial batch.",
)
flags.DEFINE_float("warmup_epochs", 0.0, "Length of the learning rate's linear warm-up, in epochs.")
flags.DEFINE_float(
    "warmup_from",
    None,
    "Factor on the learning rate at the start of the warm-up "
    "(unset: base over initial learning rate, at most 1).",
)

# ---- Layout: changes speed, and nothing that is learned
flags.DEFINE_integer(
    "micro_batch_size",
    0,
    "Most examples that a replica takes through one forward and backward pass (0: the fastest that "
    "fits in memory, measured; under --deterministic, 128, or the ghost batch if that is larger; "
    "under --anneal=measured, at most 128 and half of the first batch).",
)
flags.DEFINE_enum(
    "strategy",
    "auto",
    ["auto", "one_device", "mirrored", "multi_worker", "tpu"],
    "Which tf.distribute strategy; auto: mirrored where there are several devices. multi_worker: "
    "several processes, which TF_CONFIG, or Slurm's or Kubernetes' environment, names. tpu: all "
    "cores of --tpu.",
)
flags.DEFINE_integer("virtual_devices", None, "Split one CPU into so many devices.")
flags.DEFINE_string(
    "tpu", None, "local, on a TPU VM; or a TPU's name, with --tpu_zone and --tpu_project."
)
flags.DEFINE_string("tpu_zone", None, "Google Cloud's zone of --tpu: us-west4-a.")
flags.DEFINE_string("tpu_project", None, "Google Cloud's project of --tpu.")
flags.DEFINE_float(
    "worker_timeout", 60.0, "Seconds after which a worker that is not heard of counts as lost."
)
flags.DEFINE_bool("deterministic", False, "Bit-reproducible kernels, and nothing timed.")

# ---- Watching
flags.DEFINE_float(
    "checkpoint_minutes", 10.0, "Minutes between checkpoints; evaluations have one besides."
)
flags.DEFINE_integer("keep_checkpoints", 3, "Newest checkpoints that are kept.")
flags.DEFINE_float("eval_every_epochs", 1.0, "Epochs between evaluations; the last always runs.")
flags.DEFINE_integer(
    "log_every_updates", 50, "Updates between logged points; evaluations log one too."
)
flags.DEFINE_float("stop_at_epoch", None, "Leave early, at this epoch, with a checkpoint.")
flags.DEFINE_string(
    "checkpoint",
    "newest",
    "What `evaluate` and `export` take of a run: newest, best, an update, or the path of a "
    "checkpoint.",
)
flags.DEFINE_string(
    "export_dir",
    None,
    "Where `export` writes (unset: export in the run directory), and what `evaluate` evaluates "
    "instead of a run: an export's SavedModel, or its file if model.keras is named.",
)
flags.DEFINE_enum(
    "format", "table", ["table", "json"], "What `plan`, `evaluate` and `sweep` print."
)
flags.DEFINE_string("plot", None, "PNG file that `plan` draws to.")

# ---- What `plan` reckons the time of a run with
flags.DEFINE_integer(
    "replicas",
    None,
    "Replicas that `plan` lays the run out on, over all hosts (unset: --virtual_devices, or one a "
    "host).",
)
flags.DEFINE_integer("hosts", None, "Hosts that share out `plan`'s replicas evenly (unset: 1).")
flags.DEFINE_float(
    "examples_per_second",
    None,
    "Examples that one replica trains in a second (unset: what the ended run in --model_dir did).",
)
flags.DEFINE_integer(
    "parameters",
    None,
    "Numbers of the model, moving statistics included, which hosts sum in an update (unset: those "
    "of the ended run in --model_dir).",
)
flags.DEFINE_float(
    "link_bandwidth",
    10.0,
    "Gigabits that a host sends to the next one in a second; scripts/benchmark_link.py measures "
    "it, and the latency.",
)
flags.DEFINE_float(
    "link_latency",
    50.0,
    "Microseconds of a step from host to host besides its bytes; between CPUs, TensorFlow's ring "
    "takes about 400.",
)

# ---- What `sweep` trains
flags.DEFINE_string(
    "sweep",
    None,
    "The grid: initial_batch_size=128,256;seed=0,1 has four points; "
    "initial_batch_size/ghost_batch_size=2/2,128/32 moves two flags together; a value with commas "
    "stands in braces, as in anneal_epochs={30%,60%},{50%,75%}. A flagfile may be a value: what "
    "the sweep's own command line or flagfile says wins over it.",
)
flags.DEFINE_string(
    "sweep_part",
    None,
    "The points that this process trains: 1/4 the first and every fourth from there, to 4/4.",
)
flags.DEFINE_integer(
    "sweep_parallel", 1, "Points that are trained at once; they share the cores out evenly."
)
flags.DEFINE_bool("sweep_retry", False, "Train points that have failed again.")

# ---- What `report` reads and writes
flags.DEFINE_multi_string(
    "runs",
    [],
    "Run directories that `report` reads, or folders of them; what stands on its command line "
    "without a flag's name is taken for one.",
)
flags.DEFINE_string("output", "report.html", "The page that `report` writes: a .html file.")
flags.DEFINE_bool(
    "pictures", False, "Also write `report`'s figures as PNG files, into a folder beside the page."
)


def _require(condition: Callable[[float], bool], meaning: str, names: str) -> None:
    """Refuses a flag's value, unless it is None, with `meaning` as the remedy."""
    for name in names.split():
        flags.register_validator(name, lambda v: v is None or condition(v), f"must be {meaning}")


_require(
    lambda v: 0 < v < float("inf"),
    "above 0",
    "train_examples base_batch_size "
    "initial_batch_size anneal_power max_batch_size image_size num_classes ghost_batch_size "
    "virtual_devices worker_timeout checkpoint_minutes keep_checkpoints "
    "log_every_updates patience noise_horizon replicas hosts "
    "examples_per_second parameters link_bandwidth sweep_parallel",
)
_require(
    lambda v: 0 < v <= 1e30,
    "above 0 and at most 1e30",
    "base_learning_rate initial_learning_rate min_learning_rate range_from range_to",
)
_require(
    lambda v: 1e-9 <= v <= 1e9,
    "above 0, from 1e-9 to 1e9",
    "epochs eval_every_epochs stop_at_epoch cycle_epochs",
)
_require(lambda v: 0 < v <= 1, "above 0 and at most 1", "cycle_factor")
_require(
    lambda v: 0 <= v < float("inf"),
    "0 or above",
    "weight_decay batch_anneals warmup_epochs micro_batch_size cooldown max_anneals "
    "momentum_warmup_epochs link_latency",
)
_require(lambda v: 0 <= v < 2**63, "from 0 to 9223372036854775807", "seed")
_require(lambda v: v in (1, NEWEST_ORDER), "1 or 2", "order_version")
_require(
    lambda v: 0 <= v < 1,
    "from 0 to below 1",
    "base_momentum momentum label_smoothing min_improvement momentum_from momentum_to",
)
_require(lambda v: 0 < v < 1, "above 0 and below 1", "ghost_decay")
_require(lambda v: 1 < v <= 1e9, "above 1 and at most 1e9", "anneal_factor growth_threshold")
_require(
    lambda v: 0 < v <= 1, "above 0 and at most 1, a factor on the learning rate", "warmup_from"
)

# Its figures lie in a folder of the same name without the suffix.
flags.register_validator("output", lambda v: re.search(r"[^/]\.html$", v), "must end with .html")
for _name in ("model_dir", "export_dir", "output", "plot"):
    flags.register_validator(
        _name,
        lambda v: v is None or not v.startswith("~"),
        "the shell leaves ~ as it is behind a =: write $HOME",
    )


def _refuse(name: str, problem: Callable[[str], str]) -> None:
    """Refuses a flag's value, unless it is None, where `problem` says what is wrong with it."""

    def check(value: str | None) -> bool:
        if value is not None and (why := problem(value)):
            raise flags.ValidationError(why)
        return True

    flags.register_validator(name, check)


def _dataset_problem(name: str) -> str:
    kind, colon, path = name.partition(":")
    return local_path.problem(path) if colon and kind == "image_folder" else local_path.empty(name)


for _name in ("model_dir", "export_dir", "output", "plot", "checkpoint"):
    _refuse(_name, local_path.problem)
for _name in ("model", "train_split", "eval_split"):
    _refuse(_name, local_path.empty)
_refuse("data_dir", local_path.remote_problem)
_refuse("dataset", _dataset_problem)
for _name in ("tpu", "tpu_zone", "tpu_project"):
    flags.register_validator(
        _name,
        lambda v: v is None or re.fullmatch(r"[a-z]([-a-z0-9.:]*[a-z0-9])?", v),
        "must be a name of small letters, digits and dashes",
    )


def from_flags(argv: Sequence[str], nameless: str | None = None) -> Config:
    """Parses a command line, program name first.

    Arguments that are no flags, which may stand between them, go to the list flag `nameless`.

    Raises:
      UserError: on an unknown flag, a value that a flag refuses, or a stray argument.
    """
    for name in names():
        flags.FLAGS[name].unparse()  # Whatever an earlier command line said.
    flags.FLAGS.set_gnu_getopt()
    for argument in argv[1:]:
        if any("\udc80" <= character <= "\udcff" for character in argument):
            raise UserError(
                f"{argument!r} is no UTF-8, as flags.txt is: rename it, or lead to it by a link."
            )
    try:
        read = flagfile_tree.texts(argv[1:])
        order = ["--order_version=1"] if any(map(_is_of_version_1, read.values())) else []
        rest = flags.FLAGS([*argv[:1], *order, *argv[1:]])  # What is given behind it wins.
    except NotRegularError as error:
        raise UserError(
            f"--flagfile={error.filename} cannot be read: {error.strerror}.\n"
            "Write the flags into a file, or give them on the command line."
        ) from error
    except OSError as error:
        raise UserError(
            f"--flagfile={error.filename} cannot be read: {error.strerror}.\n"
            "See python -m trainer --helpfull."
        ) from error
    except (flags.Error, UnicodeDecodeError) as error:
        raise UserError(f"{error}\nSee python -m trainer --helpfull.") from error
    if len(rest) > 1 and nameless is None:
        raise UserError(f"unexpected argument {rest[1]!r}: flags are written --name=value.")
    values: dict[str, Any] = {name: flags.FLAGS[name].value for name in names()}
    if nameless:
        values[nameless] = [*values[nameless], *rest[1:]]
    _check_values(values)
    config = _config(values)
    _check_strategy(config)
    return config


def _config(values: dict[str, Any]) -> Config:
    """With the precision that an unset one means: a run elsewhere would learn with another."""
    default = "bfloat16" if values["strategy"] == "tpu" else "float32"
    return Config(**{**values, "precision": values["precision"] or default})


def _is_of_version_1(flagfile: str) -> bool:
    """Whether this is the flags.txt of a run from before --order_version: its replay has 1.

    A run's has a line for every flag with a value, and a recipe for a few.
    """
    named = {line[2:].partition("=")[0] for line in flagfile.splitlines()}
    return named >= _IN_EVERY_RUN and "order_version" not in named


def _check_values(values: dict[str, Any]) -> None:
    """Refuses what no flagfile can hold, and URLs among the runs of a report."""
    for path in values["runs"]:
        if why := local_path.problem(path):
            raise UserError(f"report cannot read {path!r}: it {why}.")
    for name, value in values.items():
        if isinstance(value, str) and len(f"{value}.".splitlines()) > 1:
            raise UserError(
                f"--{name}={value!r} has a line break, and flags.txt has a line a flag: rename it."
            )


def _check_strategy(config: Config) -> None:
    """Refuses flags of one strategy with another."""
    if config.strategy == "one_device" and (config.virtual_devices or 1) > 1:
        raise UserError(
            f"--strategy=one_device uses one of --virtual_devices={config.virtual_devices}: "
            "use --strategy=mirrored, or leave --virtual_devices out."
        )
    if config.strategy == "multi_worker" and config.virtual_devices:
        raise UserError(
            f"--virtual_devices={config.virtual_devices} splits one process, and "
            "--strategy=multi_worker has several: leave one of the two out."
        )
    if config.strategy == "auto" and config.tpu:
        raise UserError(f"--tpu={config.tpu} is for --strategy=tpu: add that, or leave --tpu out.")
    if config.strategy != "tpu":
        return
    if config.virtual_devices:
        raise UserError(
            f"--virtual_devices={config.virtual_devices} splits a CPU, and --strategy=tpu uses "
            "none: leave one of the two out."
        )
    if not config.tpu:
        raise UserError(
            "--strategy=tpu needs --tpu: local on a TPU VM, or else a TPU's name with --tpu_zone "
            "and --tpu_project."
        )
    if config.tpu != "local" and not (config.tpu_zone and config.tpu_project):
        raise UserError(
            f"--tpu={config.tpu} is a name, which is looked up by zone and project: add "
            "--tpu_zone and --tpu_project, or use --tpu=local on the TPU VM."
        )


def given() -> dict[str, str]:
    """The flags that the last command line set, its flagfiles' included, by name: --name=value."""
    return {name: flags.FLAGS[name].serialize() for name in names() if flags.FLAGS[name].present}


def names() -> list[str]:
    """The names of all flags, in the order of Config."""
    return [field.name for field in dataclasses.fields(Config)]


def defaults() -> Config:
    """The Config of a command line without flags."""
    return _config({name: flags.FLAGS[name].default for name in names()})
