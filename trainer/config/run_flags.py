"""Declares the flags that decide how a run learns, such as its length and its schedule."""

import dataclasses

from trainer.config import local_path
from trainer.config.declaration import (
    EPOCHS,
    FACTOR,
    FRACTION,
    MODEL,
    POSITIVE,
    RATE,
    TRAINING,
    Group,
    Scope,
    at_least,
    must_be,
)
from trainer.config.model_flags import ModelFlags

# The --order_version of new runs.
NEWEST_ORDER = 2

# Optimizers that divide the average gradient by the root of the average squared gradient. For
# these optimizers, --momentum is β₁, the decay of the average gradient. Unlike the momentum of SGD,
# a larger β₁ does not lengthen a step.
ADAPTIVE = ("adam", "adamw", "lamb")

# Values of --anneal at which the schedule depends on the epoch alone.
_FUNCTIONS = ("constant", "step", "cosine", "polynomial", "exponential", "cyclical")

_LEARNED = Scope.LEARNED
_fork = Group("Fork: a run that begins with the state of another run", _LEARNED, ("plan", "train"))
_length = Group("Length and order", _LEARNED, TRAINING)
_optimizer = Group("Optimizer", _LEARNED, TRAINING)
_average = Group("Average of the parameters", _LEARNED, TRAINING)
_start = Group("Start: a tuned reference, and what differs from it", _LEARNED, TRAINING)
_schedule = Group("Schedule of the noise scale", _LEARNED, TRAINING)
_step = Group("Schedule: --anneal=step, exponential or polynomial", _LEARNED, TRAINING)
_cyclical = Group("Schedule: --anneal=cyclical", _LEARNED, TRAINING)
_plateau = Group("Schedule: --anneal=plateau", _LEARNED, TRAINING)
_measured = Group("Schedule: --anneal=measured", _LEARNED, TRAINING)
_range = Group("Range test", _LEARNED, TRAINING)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunFlags(ModelFlags):
    """Flags that decide how a run learns; an unset flag without a default is None."""

    fork_from: str | None = _fork(
        None,
        "Run whose state this run begins with, and whose flags it has unless they are given: "
        "RUN@UPDATE, RUN@best or RUN@newest (unset: the run begins with initial weights).",
        problem=local_path.run_problem,
    )
    fork_position: int | None = _fork(
        None,
        "0: take only the parameters and moving statistics of --fork_from, and begin at position "
        "0 (unset: go on at the position of the other run, with optimizer slots, averages and "
        "controller).",
        problem=must_be("0", lambda value: value == 0),
    )

    epochs: float = _length(16.0, "Length of the run, in epochs.", problem=EPOCHS)
    seed: int = _length(
        0,
        "Seed of everything random: initial weights, order of examples, augmentation.",
        problem=must_be("from 0 to 9223372036854775807", lambda value: 0 <= value < 2**63),
    )
    order_version: int | None = _length(
        None,
        "Version of the order of examples and of dropout's seeds. Runs that are older than this "
        "flag have version 1, in which the order repeats after some epochs (unset: 2 for a new "
        "run; a resumed run keeps its version).",
        problem=must_be("1 or 2", lambda value: value in (1, NEWEST_ORDER)),
    )

    optimizer: str = _optimizer(
        "momentum",
        "Optimizer; for adam, adamw and lamb, the momentum is beta1, and beta2 is 0.999.",
        choices=("sgd", "momentum", "nesterov", "adam", "adamw", "lars", "lamb"),
    )
    weight_decay: float = _optimizer(
        0.0,
        "Factor of the coupled L2 penalty on parameters with at least two dimensions, so not on "
        "most biases or the weights of normalisation. adamw and lamb instead add the factor times "
        "the parameter to the normalised gradient.",
        problem=at_least(0),
    )
    clip_norm: float | None = _optimizer(
        None,
        "Largest Euclidean norm of an update's gradient; a longer gradient is scaled down to this "
        "norm. The gradient includes the model's regularizers, but not --weight_decay (unset: no "
        "clipping).",
        problem=RATE,
    )
    loss: str = _optimizer(
        "softmax",
        "Loss of an example. softmax: cross-entropy of one class among all; sigmoid: binary "
        "cross-entropy of each class; the probabilities of the classes need not sum to 1.",
        choices=("softmax", "sigmoid"),
    )
    sigmoid_reduction: str = _optimizer(
        "sum", "Reduction of --loss=sigmoid over the classes.", choices=("sum", "mean")
    )
    sigmoid_threshold: float | None = _optimizer(
        None,
        "Threshold for the targets of mixed images, with --loss=sigmoid. The target of a class is "
        "1 if the share of the class in the image is above the threshold, and otherwise 0 (unset: "
        "the target is the share).",
        problem=FRACTION,
    )
    label_smoothing: float = _optimizer(
        0.0,
        "Share of the target probability that is spread evenly over all classes.",
        problem=FRACTION,
    )

    ema_decay: float | None = _average(
        None,
        "Decay of the moving average of parameters and moving statistics, per --base_batch_size "
        "examples. At every batch size, the average spans about --base_batch_size / (1 - decay) "
        "examples (unset: no average).",
        problem=must_be("above 0 and below 1", lambda value: 0 < value < 1),
    )
    evaluate_with: str | None = _average(
        None,
        "Parameters that `evaluate`, `export` and `predict` use. plain: the trained parameters; "
        "ema: their moving average. A run with --ema_decay evaluates both; the parameters that "
        "this flag names decide the result, the best checkpoint and plateaus (unset: ema with "
        "--ema_decay, else plain).",
        choices=("plain", "ema"),
        scope=Scope.FREE,
        commands=MODEL,
        decides="plateau",
    )

    base_learning_rate: float = _start(0.1, "Learning rate of the tuned reference.", problem=RATE)
    base_batch_size: int = _start(
        128, "Batch size of the tuned reference, in examples.", problem=POSITIVE
    )
    base_momentum: float | None = _start(
        None, "Momentum of the tuned reference (unset: 0.9; 0 for sgd).", problem=FRACTION
    )
    scaling: str = _start(
        "linear",
        "Rule by which the learning rate follows the batch size at equal noise scale. linear: for "
        "SGD; sqrt: for adam, adamw and lamb; none: the learning rate does not change.",
        choices=("linear", "sqrt", "none"),
    )
    initial_learning_rate: float | None = _start(
        None,
        "Learning rate at the start (unset: computed from the reference, at equal noise scale).",
        problem=RATE,
    )
    initial_batch_size: int | None = _start(
        None,
        "Batch size at the start, in examples (unset: computed from the reference, at equal noise "
        "scale).",
        problem=POSITIVE,
    )
    momentum: float | None = _start(None, "Momentum (unset: the reference's).", problem=FRACTION)
    warmup_epochs: float = _start(
        0.0, "Length of the learning rate's linear warm-up, in epochs.", problem=at_least(0)
    )
    warmup_from: float | None = _start(
        None,
        "Factor on the learning rate at the start of its warm-up (unset: --base_learning_rate / "
        "initial learning rate, but at most 1).",
        problem=must_be("above 0 and at most 1, a factor on the rate", lambda v: 0 < v <= 1),
    )
    momentum_warmup_epochs: float = _start(
        0.0,
        "Length of the momentum warm-up, in epochs: momentum and batch size rise together, at "
        "constant noise scale and learning rate.",
        problem=at_least(0),
    )
    momentum_from: float | None = _start(
        None, "Momentum at the start of its warm-up (unset: the reference's).", problem=FRACTION
    )

    anneal: str = _schedule(
        "constant",
        "Schedule of the noise scale. plateau: divides it by --anneal_factor when top-1 stops "
        "improving; measured: keeps it constant while the batch size follows the gradient noise; "
        "range_test: raises the learning rate, as the command range_test does.",
        choices=(*_FUNCTIONS, "plateau", "measured", "range_test"),
    )
    anneal_with: str = _schedule(
        "learning_rate",
        "Quantity that changes so that the noise scale follows its schedule. learning_rate: the "
        "learning rate alone; hybrid: the batch size in the first --batch_anneals steps of `step` "
        "or `plateau`, then the learning rate; batch_size: the batch size up to its maximum, then "
        "the learning rate.",
        choices=("learning_rate", "hybrid", "batch_size"),
    )
    max_batch_size: int | None = _schedule(
        None,
        "Largest batch size B_max, in examples (unset: N/10, rounded down to a multiple of the "
        "smallest batch).",
        problem=POSITIVE,
    )
    momentum_to: float | None = _schedule(
        None,
        "Lowest momentum. Once the batch size is at its maximum, the momentum falls to this value, "
        "and only then the learning rate falls (unset: the momentum does not fall).",
        problem=FRACTION,
    )

    anneal_epochs: tuple[str, ...] = _step(
        (),
        "Epochs at which `step` divides the noise scale by --anneal_factor; a value may be a "
        "percentage of the run, as in 30%,60%,80%. For `exponential`: one value, the length over "
        "which the noise scale falls by that factor.",
    )
    anneal_factor: float = _step(5.0, "Divisor of the noise scale at each step.", problem=FACTOR)
    anneal_power: float = _step(
        2.0,
        "Exponent of `polynomial`: the noise scale is proportional to (1 - epoch / --epochs) ** "
        "exponent.",
        problem=POSITIVE,
    )
    batch_anneals: int = _step(
        1, "Number of steps that `hybrid` realises with the batch size.", problem=at_least(0)
    )

    cycle_epochs: float = _cyclical(4.0, "Length of a whole cycle, in epochs.", problem=EPOCHS)
    min_learning_rate: float | None = _cyclical(
        None, "Lowest learning rate of a cycle (unset: 1/4 of the initial rate).", problem=RATE
    )
    cycle_factor: float = _cyclical(
        1.0,
        "Factor by which the height of a cycle changes after each cycle. In Smith 2015, 1 is "
        "triangular, and 0.5 is triangular2; with --cycle_factor_per=update, the factor is the "
        "base of exp_range.",
        problem=must_be("above 0 and at most 1", lambda v: 0 < v <= 1),
    )
    cycle_factor_per: str = _cyclical(
        "cycle",
        "Interval after which --cycle_factor applies again: a cycle, or an update of the initial "
        "batch size.",
        choices=("cycle", "update"),
    )

    min_improvement: float = _plateau(
        0.0,
        "Threshold of an improvement, as a fraction: top-1 must exceed its best value by more than "
        "this.",
        problem=FRACTION,
    )
    patience: int = _plateau(
        3,
        "Number of consecutive evaluations without improvement that make a plateau.",
        problem=POSITIVE,
    )
    cooldown: int = _plateau(
        0,
        "Number of evaluations after a step that do not count for --patience.",
        problem=at_least(0),
    )
    max_anneals: int = _plateau(
        2,
        "Largest number of steps; the plateau after the last step ends the run.",
        problem=at_least(0),
    )

    growth_threshold: float = _measured(
        2.0,
        "Growth factor and threshold: once the gradient noise scale is at least this many times "
        "the batch size, the batch size is multiplied by this number.",
        problem=FACTOR,
    )
    noise_horizon: int | None = _measured(
        None,
        "Averaging horizon and decision interval of the gradient noise, in examples (unset: N/4).",
        problem=POSITIVE,
        scope=Scope.FREE,
        decides="measured",
    )

    range_from: float = _range(1e-4, "Learning rate at the start of the range test.", problem=RATE)
    range_to: float = _range(10.0, "Learning rate at the end of the range test.", problem=RATE)
    range_scale: str = _range(
        "geometric", "Scale on which the learning rate rises.", choices=("geometric", "linear")
    )
