"""Declares the flags that decide how a run learns: length, optimizer, start and schedule."""

import dataclasses

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

# Values of --optimizer that divide the average gradient by the root of the average of the squared
# gradient. Their --momentum is β₁, the decay of the average gradient. Unlike the momentum of SGD,
# a larger β₁ does not lengthen a step.
ADAPTIVE = ("adam", "adamw", "lamb")

# Values of --anneal at which the schedule depends on the epoch alone.
_FUNCTIONS = ("constant", "step", "cosine", "polynomial", "exponential", "cyclical")

_LEARNED = Scope.LEARNED
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

    epochs: float = _length(16.0, "Length of the run, in epochs.", problem=EPOCHS)
    seed: int = _length(
        0,
        "Seed of everything random: initial weights, order of examples, augmentation.",
        problem=must_be("from 0 to 9223372036854775807", lambda value: 0 <= value < 2**63),
    )
    order_version: int | None = _length(
        None,
        "Version of the order of examples and of dropout's seeds. Runs older than this flag have "
        "version 1, whose order repeats (unset: the run's own; 2 for new runs).",
        problem=must_be("1 or 2", lambda value: value in (1, NEWEST_ORDER)),
    )

    optimizer: str = _optimizer(
        "momentum",
        "Optimizer; for adam, adamw and lamb, the momentum is beta1, and beta2 is 0.999.",
        choices=("sgd", "momentum", "nesterov", "adam", "adamw", "lars", "lamb"),
    )
    weight_decay: float = _optimizer(
        0.0,
        "Factor of the coupled L2 penalty on all parameters except biases and the weights of "
        "normalisation (adamw and lamb: the factor times the parameter is added to the normalised "
        "gradient).",
        problem=at_least(0),
    )
    clip_norm: float | None = _optimizer(
        None,
        "Largest Euclidean norm of an update's gradient, with the model's regularizers and without "
        "--weight_decay; a longer gradient is scaled down to this norm (unset: no clipping).",
        problem=RATE,
    )
    loss: str = _optimizer(
        "softmax",
        "Loss of an example. softmax: cross-entropy of one class among all; sigmoid: binary "
        "cross-entropy of each class, whose probabilities then need not sum to 1.",
        choices=("softmax", "sigmoid"),
    )
    sigmoid_reduction: str = _optimizer(
        "sum", "Reduction of --loss=sigmoid over the classes.", choices=("sum", "mean")
    )
    sigmoid_threshold: float | None = _optimizer(
        None,
        "Share of a mixed image above which the label's target in --loss=sigmoid is 1; at or below "
        "it, the target is 0 (unset: the target is the share).",
        problem=FRACTION,
    )
    label_smoothing: float = _optimizer(
        0.0, "Probability that is spread evenly over all classes.", problem=FRACTION
    )

    ema_decay: float | None = _average(
        None,
        "Decay of the average of parameters and moving statistics, per --base_batch_size examples: "
        "its horizon is --base_batch_size / (1 - decay) examples at all batch sizes (unset: no "
        "average).",
        problem=must_be("above 0 and below 1", lambda value: 0 < value < 1),
    )
    evaluate_with: str | None = _average(
        None,
        "Parameters that `evaluate`, `export` and `predict` take, and whose evaluation counts for "
        "the result, the best checkpoint and plateaus: plain, or ema for their average. A run with "
        "--ema_decay evaluates both (unset: ema with --ema_decay, else plain).",
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
        None, "Learning rate at the start (unset: solved from the reference).", problem=RATE
    )
    initial_batch_size: int | None = _start(
        None,
        "Batch size at the start, in examples (unset: solved from the reference).",
        problem=POSITIVE,
    )
    momentum: float | None = _start(None, "Momentum (unset: the reference's).", problem=FRACTION)
    warmup_epochs: float = _start(
        0.0, "Length of the learning rate's linear warm-up, in epochs.", problem=at_least(0)
    )
    warmup_from: float | None = _start(
        None,
        "Factor on the learning rate when its warm-up starts (unset: base / initial learning rate, "
        "at most 1).",
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
        "Quantity that realises the schedule. learning_rate: the learning rate alone; hybrid: the "
        "batch size in the first --batch_anneals steps of `step` or `plateau`, then the learning "
        "rate; batch_size: the batch size up to its maximum, then the learning rate.",
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
        "Lowest momentum, to which the momentum falls once the batch size is at its maximum, "
        "before the learning rate falls (unset: the momentum does not fall).",
        problem=FRACTION,
    )

    anneal_epochs: tuple[str, ...] = _step(
        (),
        "Times at which `step` divides the noise scale by --anneal_factor, in epochs or percent of "
        "the run, as in 30%,60%,80%. For `exponential`: the length, in the same units, over which "
        "the noise scale falls by that factor.",
    )
    anneal_factor: float = _step(5.0, "Divisor of the noise scale at each step.", problem=FACTOR)
    anneal_power: float = _step(
        2.0, "Exponent of `polynomial`: (1 - epochs / total) ** exponent.", problem=POSITIVE
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
        "Factor on a cycle's height after each cycle. Smith's policies: 1 is triangular, 0.5 is "
        "triangular2; with --cycle_factor_per=update, it is the base of exp_range.",
        problem=must_be("above 0 and at most 1", lambda v: 0 < v <= 1),
    )
    cycle_factor_per: str = _cyclical(
        "cycle",
        "Interval of --cycle_factor: a cycle, or an update at the initial batch size.",
        choices=("cycle", "update"),
    )

    min_improvement: float = _plateau(
        0.0,
        "Rise of top-1 above its best value that an improvement must exceed, as a fraction.",
        problem=FRACTION,
    )
    patience: int = _plateau(
        3,
        "Number of consecutive evaluations without improvement that make a plateau.",
        problem=POSITIVE,
    )
    cooldown: int = _plateau(0, "Number of evaluations ignored after a step.", problem=at_least(0))
    max_anneals: int = _plateau(
        2, "Largest number of steps; the plateau after the last ends the run.", problem=at_least(0)
    )

    growth_threshold: float = _measured(
        2.0,
        "Factor by which the batch grows when gradient noise scale / batch size reaches the same "
        "factor.",
        problem=FACTOR,
    )
    noise_horizon: int | None = _measured(
        None,
        "Averaging horizon and decision interval of the gradient noise, in examples (unset: N/4).",
        problem=POSITIVE,
        scope=Scope.FREE,
        decides="measured",
    )

    range_from: float = _range(1e-4, "Learning rate at the start.", problem=RATE)
    range_to: float = _range(10.0, "Learning rate at the end.", problem=RATE)
    range_scale: str = _range(
        "geometric", "Scale on which the learning rate rises.", choices=("geometric", "linear")
    )
