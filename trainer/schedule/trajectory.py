"""Trajectory of a run: the function from position to Setting, which `plan` and `train` share.

A position is the number of training examples that the run has consumed. A Setting is the batch
size, the learning rate and the momentum of one update.
"""

import dataclasses
import math

from trainer.config.flags import Config
from trainer.config.run_flags import ADAPTIVE
from trainer.errors import UserError
from trainer.schedule import (
    anneal,
    batch_limits,
    layout,
    momentum,
    noise_controller,
    noise_scale,
    resolution,
    warmup,
)
from trainer.schedule.controller import Controller
from trainer.schedule.curve import Curve
from trainer.schedule.noise_controller import NoiseController
from trainer.schedule.noise_scale import Scaling, Setting
from trainer.schedule.plateau_controller import PlateauController
from trainer.schedule.realize import BatchLimits, Target, realize


@dataclasses.dataclass(frozen=True)
class Trajectory:
    """Schedule of a run: a function of the position and of the state of the run's controller.

    Attributes:
      examples: N, the number of training examples.
      epochs: length of the run.
      start: Setting without annealing and without warm-ups.
      limits: limits to the growth of the batch.
      curves: curves of the noise scale divided by its initial value, of the momentum, and of the
        warm-up factor on the learning rate.
      control: controller, which may change the schedule during the run (controller.py).
      micro_batch_size: micro-batch size that the controller requires, in examples, or None.
      image_sizes: curve of the side of the training images, in pixels; None if --image_sizes is not
        set.
    """

    examples: int
    epochs: float
    start: Setting
    limits: BatchLimits
    curves: tuple[Curve, Curve, Curve]
    control: Controller
    micro_batch_size: int | None = None
    image_sizes: Curve | None = None

    @property
    def end(self) -> int:
        """Position at which the run ends; the first update that reaches it is the last update."""
        return max(1, position_of(self.epochs, self.examples))

    def at(self, position: int) -> Setting:
        """Returns the Setting of the update that starts at `position`."""
        epochs = position / self.examples
        factor, momentum, warmup = (curve(epochs) for curve in self.curves)
        target = self.control.changed(Target(factor, momentum, self.limits.smallest))
        setting = realize(target, self.start, self.limits)
        if warmup == 1:
            return setting
        return dataclasses.replace(setting, learning_rate=setting.learning_rate * warmup)

    def image_size(self, position: int) -> int | None:
        """Returns the side of the images in the update that starts at `position`, in pixels.

        The result is None if --image_sizes is not set.
        """
        if self.image_sizes is None:
            return None
        return int(self.image_sizes(position / self.examples))

    def next_turn(self, epochs: float) -> float:
        """Returns the epoch of the first turn after `epochs`, over all curves; infinity if none."""
        curves = (*self.curves, *([self.image_sizes] if self.image_sizes else []))
        return min(curve.next_turn(epochs) for curve in curves)

    def noise_scale(self, setting: Setting) -> float:
        """Returns the predicted noise scale of `setting`."""
        return noise_scale.noise_scale(setting, self.examples, self.limits.scaling)

    @property
    def batch_moves(self) -> bool:
        """True if the batch size may change during the run."""
        return self.limits.smallest < self.limits.largest

    def batch_moves_one_way(self, epochs: float) -> bool:
        """Returns True if, from `epochs` to the next turn, the batch only grows or only shrinks."""
        factor, momentum, _ = self.curves
        return factor.is_flat(epochs) or momentum.is_flat(epochs) or not factor.rises


def position_of(epochs: float, examples: int) -> int:
    """Returns `epochs` as a position, rounded up; drops a fraction of up to 1e-6 examples."""
    return math.ceil(epochs * examples - 1e-6)


def unfreeze_position(config: Config, examples: int) -> int | None:
    """Returns the position from which all layers train; None if --unfreeze_epochs is not set.

    Raises:
      UserError: if --unfreeze_epochs is given without --freeze, or is not inside the run.
    """
    epochs = config.unfreeze_epochs
    if epochs is None:
        return None
    if config.freeze is None:
        raise UserError(
            f"--unfreeze_epochs={epochs:g} has nothing to unfreeze: name layers with --freeze, or "
            "leave --unfreeze_epochs out."
        )
    if epochs >= config.epochs:
        raise UserError(
            f"--unfreeze_epochs={epochs:g} is not inside the run of {config.epochs:g} epochs: "
            "use an earlier epoch, or leave --unfreeze_epochs out."
        )
    return position_of(epochs, examples)


def scaling_of(config: Config) -> Scaling:
    """Returns the rule by which the learning rate depends on the batch size and the momentum."""
    return Scaling(
        {"linear": 1.0, "sqrt": 0.5, "none": 0.0}[config.scaling],
        momentum_counts=config.optimizer not in ADAPTIVE,
    )


def start_of(config: Config) -> Setting:
    """Returns the Setting of a run without annealing, warm-ups and range test.

    Raises:
      UserError: if the initial values contradict the reference (noise_scale.py).
    """
    reference = reference_of(config)
    momentum_asked = reference.momentum if config.momentum is None else config.momentum
    if config.optimizer == "sgd" and momentum_asked:
        raise UserError(
            f"--optimizer=sgd cannot have a momentum of {momentum_asked:g}: "
            "use --optimizer=momentum, or leave --momentum and --base_momentum out."
        )
    return noise_scale.solve(
        reference,
        learning_rate=config.initial_learning_rate,
        batch_size=config.initial_batch_size,
        momentum=config.momentum,
        ghost_batch_size=config.ghost_batch_size,
        scaling=scaling_of(config),
    )


def warmup_from(config: Config) -> float:
    """Returns the factor on the learning rate at the start of its warm-up."""
    rate = reference_of(config).learning_rate / start_of(config).learning_rate
    return config.warmup_from or min(1, rate)


def from_config(config: Config, examples: int, replicas: int, *, warns: bool = True) -> Trajectory:
    """Returns the trajectory that the flags describe, for `examples` training examples.

    The batch sizes do not depend on `replicas`, but replicas × ghost batch must divide each size.
    If `warns` is true, a largest batch above a tenth of the examples is reported.

    Raises:
      UserError: if flags exclude each other; if the initial values contradict the reference
        (noise_scale.py); if the largest batch is below the initial batch or above `examples`; or if
        replicas × ghost batch does not divide a batch.
    """
    ghost = config.ghost_batch_size
    reference, scaling = reference_of(config), scaling_of(config)
    start = start_of(config)
    if config.anneal == "range_test":
        start = _range_end(config, start)
    lowest = _first_momentum(config, start, reference, scaling)
    # This check precedes the next checks, because they search for the divisors of a batch size. For
    # a huge batch size, the search takes hours.
    batch_limits.check_start(config, start, examples)
    layout.check_divides(
        f"initial batch size {start.batch_size}", start.batch_size, replicas, ghost
    )
    smallest = momentum.first_batch(start, lowest, ghost)
    largest = batch_limits.largest_batch(config, start, smallest, examples, warns=warns)
    by_batch = config.anneal_with != "learning_rate" or config.anneal == "measured"
    limit, floor = largest if by_batch else start.batch_size, batch_limits.anneal_floor(config)
    limits = BatchLimits(smallest, limit, floor, scaling, config.momentum_to)
    if smallest < start.batch_size:
        what = f"the first batch of the momentum warm-up, {smallest},"
        remedy = "Use a higher --momentum_from, or leave --momentum_warmup_epochs out"
        layout.check_divides(what, smallest, replicas, ghost, largest, remedy=remedy)
    what = f"--max_batch_size={largest}"
    layout.check_divides(what, largest, replicas, ghost, smallest)
    layout.lay_out(smallest, replicas, ghost, config.micro_batch_size or ghost)
    curves = (
        anneal.from_config(config, start, examples),
        momentum.warmup(config.momentum_warmup_epochs, start, limits),
        warmup.linear(config.warmup_epochs, warmup_from(config)),
    )
    control = _controller(config, limits, examples)
    fixed = None  # Micro-batch size that the controller requires, if any.
    if config.anneal == "measured":
        fixed = noise_controller.micro_batch(smallest, replicas, ghost, config.micro_batch_size)
    sizes = resolution.from_config(config)
    return Trajectory(examples, config.epochs, start, limits, curves, control, fixed, sizes)


def _controller(config: Config, limits: BatchLimits, examples: int) -> Controller:
    match config.anneal:
        case "plateau":
            return PlateauController(
                factor=config.anneal_factor,
                min_improvement=config.min_improvement,
                patience=config.patience,
                cooldown=config.cooldown,
                max_anneals=config.max_anneals,
            )
        case "measured":
            every = noise_horizon(config, examples)
            return NoiseController(config.growth_threshold, limits, every, limits.smallest)
    return Controller()


def _range_end(config: Config, start: Setting) -> Setting:
    """Returns the Setting at the end of a range test, where the learning rate is highest."""
    if config.range_from >= config.range_to:
        raise UserError(
            f"--range_from={config.range_from:g} is not below --range_to={config.range_to:g}: "
            "choose a lower --range_from, since a range test raises the learning rate."
        )
    warms_up = config.warmup_epochs or config.momentum_warmup_epochs
    if config.anneal_with != "learning_rate" or warms_up:
        raise UserError(
            "a range test changes the learning rate alone: use --anneal_with=learning_rate, "
            "--warmup_epochs=0 and --momentum_warmup_epochs=0."
        )
    return dataclasses.replace(start, learning_rate=config.range_to)


def noise_horizon(config: Config, examples: int) -> int:
    """Returns the averaging horizon of the measured gradient noise, in examples."""
    return config.noise_horizon or max(1, examples // 4)


def reference_of(config: Config) -> Setting:
    """Returns the tuned reference: --base_learning_rate, --base_batch_size, --base_momentum."""
    momentum = config.base_momentum
    if momentum is None:
        momentum = 0.0 if config.optimizer == "sgd" else 0.9
    return Setting(config.base_batch_size, config.base_learning_rate, momentum)


def _first_momentum(config: Config, start: Setting, reference: Setting, scaling: Scaling) -> float:
    """Returns the momentum at position 0: lower than in `start` if the momentum warms up."""
    flags = {
        "--momentum_warmup_epochs": config.momentum_warmup_epochs or None,
        "--momentum_from": config.momentum_from,
        "--momentum_to": config.momentum_to,
    }
    given = [name for name, value in flags.items() if value is not None]
    if given and scaling != noise_scale.LINEAR:
        adaptive = config.optimizer in ADAPTIVE
        remedy = f"another optimizer than {config.optimizer}" if adaptive else "--scaling=linear"
        raise UserError(
            f"{given[0]} needs the linear scaling rule of SGD: use {remedy}, or leave "
            f"{given[0]} out."
        )
    if config.momentum_to is not None and (
        config.anneal_with != "batch_size" or config.momentum_to > start.momentum
    ):
        raise UserError(
            f"the momentum of {start.momentum:g} cannot fall to --momentum_to="
            f"{config.momentum_to:g} with --anneal_with={config.anneal_with}: "
            "give a lower --momentum_to, and --anneal_with=batch_size."
        )
    lowest = reference.momentum if config.momentum_from is None else config.momentum_from
    if not config.momentum_warmup_epochs:
        if config.momentum_from is None:
            return start.momentum
        raise UserError(
            f"--momentum_from={lowest:g} needs a warm-up: set --momentum_warmup_epochs."
        )
    if lowest >= start.momentum or config.anneal == "measured":
        raise UserError(
            f"--momentum_warmup_epochs={config.momentum_warmup_epochs:g} has nothing to warm up "
            f"from {lowest:g} to {start.momentum:g} with --anneal={config.anneal}: leave it out, "
            "or give a --momentum above --momentum_from and an --anneal other than measured."
        )
    return lowest
