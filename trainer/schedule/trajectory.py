"""The trajectory of a run: position → Setting, the same for `plan` and `train`."""

import dataclasses
import math
from collections.abc import Callable

from absl import logging

from trainer.config.flags import Config
from trainer.errors import UserError
from trainer.schedule import anneal, layout, momentum, noise_controller, noise_scale, warmup
from trainer.schedule.controller import Controller
from trainer.schedule.curve import Curve
from trainer.schedule.noise_controller import NoiseController
from trainer.schedule.noise_scale import Scaling, Setting
from trainer.schedule.plateau_controller import PlateauController
from trainer.schedule.realize import BatchLimits, Target, realize


@dataclasses.dataclass(frozen=True)
class Trajectory:
    """A schedule over `examples` · `epochs` positions: pure, or a function of a control's memory.

    Attributes:
      examples: N.
      epochs: length of the run.
      start: the Setting at position 0, before warm-up.
      limits: how the batch may grow.
      target: what is wanted at a number of epochs.
      curves: noise-scale factor and momentum of the target, and the warm-up's factor on the rate.
      control: what decides while the run goes on.
      micro_batch_size: b, where that is part of what is learned.
    """

    examples: int
    epochs: float
    start: Setting
    limits: BatchLimits
    target: Callable[[float], Target]
    curves: tuple[Curve, Curve, Curve]
    control: Controller
    micro_batch_size: int | None = None

    @property
    def end(self) -> int:
        """The position that ends the run: the first update that ends at or after it is the last."""
        return max(1, position_of(self.epochs, self.examples))

    def at(self, position: int) -> Setting:
        """The Setting of the update that starts at `position`."""
        epochs = position / self.examples
        setting = realize(self.target(epochs), self.start, self.limits)
        _, _, warmup = self.curves
        factor = warmup(epochs)
        if factor == 1:
            return setting
        return dataclasses.replace(setting, learning_rate=setting.learning_rate * factor)

    def noise_scale(self, setting: Setting) -> float:
        """g of a Setting, as predicted."""
        return noise_scale.noise_scale(setting, self.examples, self.limits.scaling)

    @property
    def batch_moves(self) -> bool:
        """Whether the batch size may differ between updates of one span of the curves."""
        return self.limits.smallest < self.limits.largest

    def batch_moves_one_way(self, epochs: float) -> bool:
        """Whether the batch size only grows or only shrinks from there to the next turn."""
        factor, momentum, _ = self.curves
        return factor.is_flat(epochs) or momentum.is_flat(epochs) or not factor.rises


def position_of(epochs: float, examples: int) -> int:
    """The first position at or after `epochs`, which may be short of it by a rounding error."""
    return math.ceil(epochs * examples - 1e-6)


def from_config(config: Config, examples: int, replicas: int) -> Trajectory:
    """The trajectory that the flags ask for, for N = `examples`.

    `replicas` decides only whether the batch sizes can be laid out, never what they are.

    Raises:
      UserError: for a start that contradicts the reference, a maximum below it or above N, batch
        sizes that cannot be laid out, or wrong annealing points.
    """
    ghost = config.ghost_batch_size
    reference = _reference(config)
    if config.optimizer == "sgd" and (config.momentum or reference.momentum):
        raise UserError(
            f"--optimizer=sgd has no momentum, not {config.momentum or reference.momentum:g}: "
            "use --optimizer=momentum, or leave --momentum and --base_momentum out."
        )
    scaling = Scaling(
        {"linear": 1.0, "sqrt": 0.5, "none": 0.0}[config.scaling],
        momentum_counts=config.optimizer not in ("adam", "lamb"),
    )
    start = noise_scale.solve(
        reference,
        learning_rate=config.initial_learning_rate,
        batch_size=config.initial_batch_size,
        momentum=config.momentum,
        ghost_batch_size=ghost,
        scaling=scaling,
    )
    if config.anneal == "range_test":
        start = _range_end(config, start)
    lowest = _first_momentum(config, start, reference, scaling)
    _check_fits(start.batch_size, examples)  # Before: the divisors of a huge one take hours.
    layout.check_divides("initial batch size", start.batch_size, replicas, ghost)
    smallest = momentum.first_batch(start, lowest, ghost)
    largest = _largest(config, start, smallest, examples)
    grows = config.anneal_with != "learning_rate" or config.anneal == "measured"
    limits = BatchLimits(
        smallest,
        largest if grows else start.batch_size,
        _batch_anneal_floor(config),
        scaling,
        config.momentum_to,
    )
    sizes = {"initial batch size": smallest, "--max_batch_size": largest}
    for what, size in sizes.items():
        layout.check_divides(what, size, replicas, ghost, *sizes.values())
    layout.lay_out(smallest, replicas, ghost, config.micro_batch_size or ghost)
    warmup_from = config.warmup_from or min(1, reference.learning_rate / start.learning_rate)
    control, target, curves = _wanted(config, start, limits, examples)
    return Trajectory(
        examples,
        config.epochs,
        start,
        limits,
        target,
        (*curves, warmup.linear(config.warmup_epochs, warmup_from)),
        control,
        noise_controller.micro_batch(limits.smallest, replicas, ghost, config.micro_batch_size)
        if config.anneal == "measured"
        else None,
    )


def _wanted(
    config: Config, start: Setting, limits: BatchLimits, examples: int
) -> tuple[Controller, Callable[[float], Target], tuple[Curve, Curve]]:
    """Returns the controller, epochs → target, and the curves that the target is made of."""
    factor = anneal.from_config(config, start, examples)
    m = momentum.warmup(config.momentum_warmup_epochs, start, limits)
    if config.anneal == "plateau":
        plateau = PlateauController(
            factor=config.anneal_factor,
            min_improvement=config.min_improvement,
            patience=config.patience,
            cooldown=config.cooldown,
            max_anneals=config.max_anneals,
        )

        def wanted(epochs: float) -> Target:
            return Target(plateau.noise_scale_factor(), m(epochs), limits.smallest)

        return plateau, wanted, (factor, m)
    if config.anneal == "measured":
        horizon = noise_horizon(config, examples)
        follower = NoiseController(config.growth_threshold, limits, horizon, limits.smallest)

        def followed(_: float) -> Target:
            return Target(1.0, start.momentum, follower.batch_size)

        return follower, followed, (factor, m)

    def scheduled(epochs: float) -> Target:
        return Target(factor(epochs), m(epochs), limits.smallest)

    return Controller(), scheduled, (factor, m)


def _range_end(config: Config, start: Setting) -> Setting:
    """The last update of a range test, from which its ramp is counted back."""
    if config.range_from >= config.range_to:
        raise UserError(
            f"--range_from={config.range_from:g} is not below --range_to={config.range_to:g}: "
            "a range test raises the learning rate."
        )
    if (
        config.anneal_with != "learning_rate"
        or config.warmup_epochs
        or config.momentum_warmup_epochs
    ):
        raise UserError(
            "a range test moves the learning rate alone: use --anneal_with=learning_rate, "
            "--warmup_epochs=0 and --momentum_warmup_epochs=0."
        )
    return dataclasses.replace(start, learning_rate=config.range_to)


def noise_horizon(config: Config, examples: int) -> int:
    """Examples over which the measured gradient noise is smoothed."""
    return config.noise_horizon or max(1, examples // 4)


def _reference(config: Config) -> Setting:
    default = 0.0 if config.optimizer == "sgd" else 0.9
    momentum = default if config.base_momentum is None else config.base_momentum
    return Setting(config.base_batch_size, config.base_learning_rate, momentum)


def _first_momentum(config: Config, start: Setting, reference: Setting, scaling: Scaling) -> float:
    """The momentum at position 0: that of `start`, or a lower one that is warmed up."""
    moved = {
        "--momentum_warmup_epochs": config.momentum_warmup_epochs or None,
        "--momentum_from": config.momentum_from,
        "--momentum_to": config.momentum_to,
    }
    given = [name for name, value in moved.items() if value is not None]
    if given and scaling != noise_scale.LINEAR:
        raise UserError(
            f"{given[0]} moves the momentum for the batch, by the linear rule of SGD: use it with "
            f"--scaling=linear and another optimizer than {config.optimizer}, or leave it out."
        )
    if config.momentum_to is not None and (
        config.anneal_with != "batch_size" or config.momentum_to > start.momentum
    ):
        raise UserError(
            f"--momentum_to={config.momentum_to:g} is where the momentum of {start.momentum:g} "
            "goes once the batch is largest: give a lower one, and --anneal_with=batch_size."
        )
    lowest = reference.momentum if config.momentum_from is None else config.momentum_from
    if not config.momentum_warmup_epochs:
        if config.momentum_from is not None:
            raise UserError(
                f"--momentum_from={lowest:g} is where --momentum_warmup_epochs starts: give it too."
            )
        return start.momentum
    if lowest >= start.momentum or config.anneal == "measured":
        raise UserError(
            f"--momentum_warmup_epochs={config.momentum_warmup_epochs:g} has nothing to warm up "
            f"from {lowest:g} to {start.momentum:g} with --anneal={config.anneal}: leave it out, "
            "or give a --momentum above --momentum_from, and a schedule."
        )
    return lowest


def _largest(config: Config, start: Setting, smallest: int, examples: int) -> int:
    """B_max: the user's, checked; or N/10 rounded down to a multiple of the smallest batch."""
    largest = config.max_batch_size
    if largest is None:
        largest = max(start.batch_size, examples // 10 // smallest * smallest)
    if largest < start.batch_size:
        raise UserError(
            f"--max_batch_size={largest} is below the initial batch size {start.batch_size}: "
            f"raise it to {start.batch_size} or more, or lower the initial batch."
        )
    _check_fits(largest, examples)
    if largest > examples / 10:
        logging.warning("%s", _above_a_tenth(config, start, largest, examples))
    return largest


def _above_a_tenth(config: Config, start: Setting, largest: int, examples: int) -> str:
    """Says what follows if the largest batch is above N/10 (Smith et al. 2018, section 5)."""
    tenth = f"N/10 = {examples // 10}"
    if config.max_batch_size is not None:
        return f"--max_batch_size={largest} is above {tenth}: batches above that cost accuracy."
    if config.anneal_with == "learning_rate" and config.anneal != "measured":
        return (
            f"a batch of {largest} is above {tenth} with {examples:,} images, which costs "
            "accuracy: use a smaller --initial_batch_size."
        )
    instead = "stays" if config.anneal == "measured" else "stays, and the learning rate anneals"
    return (
        f"the batch cannot grow with {examples:,} images: it {instead}, since the initial batch "
        f"of {start.batch_size} is not below {tenth}. Use a smaller --initial_batch_size."
    )


def _check_fits(batch_size: int, examples: int) -> None:
    if batch_size > examples:
        raise UserError(
            f"a batch of {batch_size} is larger than the {examples} training examples: "
            f"use N/10 = {max(1, examples // 10)} or less."
        )


def _batch_anneal_floor(config: Config) -> float:
    """The noise-scale factor down to which the batch anneals."""
    if config.scaling == "none" and config.anneal_with != "learning_rate":
        raise UserError(
            f"--scaling=none says that the batch has no part in the noise scale, and --anneal_with="
            f"{config.anneal_with} anneals by it: use --anneal_with=learning_rate."
        )
    if config.anneal_with == "hybrid" and config.anneal not in ("step", "plateau"):
        raise UserError(
            f"--anneal_with=hybrid counts annealing steps, which --anneal={config.anneal} has not: "
            "use --anneal=step or plateau, or --anneal_with=batch_size."
        )
    floors = {
        "learning_rate": 1.0,
        "hybrid": config.anneal_factor**-config.batch_anneals,
        "batch_size": 0.0,
    }
    return floors[config.anneal_with]
