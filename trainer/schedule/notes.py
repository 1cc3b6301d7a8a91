"""Lines that `plan` and `train` print about effects of flags that plan's table does not show."""

from collections.abc import Sequence

from trainer.config import image_sizes, training_targets
from trainer.config.flags import Config
from trainer.schedule import averaging, batch_limits, resolution, trajectory
from trainer.schedule.plan import Phase
from trainer.schedule.trajectory import Trajectory


def lines(config: Config, schedule: Trajectory, phases: Sequence[Phase]) -> list[str]:
    """Returns lines about flags with an effect that is not in the table, or without any effect.

    Args:
      config: flags of the run.
      schedule: trajectory of the run.
      phases: phases of the run, or the phase `Ramp.first` of each ramp of the run.

    Raises:
      UserError: if --evaluate_with=ema is given without --ema_decay.
    """
    found = _sizes(config, phases)
    if config.clip_norm is not None:
        found.append(
            f"--clip_norm={config.clip_norm:g} depends on the batch size: larger batches have "
            "shorter gradients, and are clipped less"
        )
    largest = max(phase.batch_size for phase in phases)
    found += averaging.described(config, schedule.examples, largest)
    if config.anneal != "range_test":  # A range test leaves out the schedule of a recipe.
        found += [*_other_rate(config), *_without_effect(config)]
    return [*found, *training_targets.described(config)]


def _other_rate(config: Config) -> list[str]:
    """Returns a line if the smallest batch does not permit the learning rate that was asked for."""
    name, wanted = "--initial_learning_rate", config.initial_learning_rate
    if wanted is None:
        name, wanted = "--base_learning_rate", config.base_learning_rate
    rate = trajectory.start_of(config).learning_rate
    # A batch is rounded to a multiple of the ghost batch, so the rate may change by a factor of 2.
    if config.initial_batch_size is not None or rate <= 2 * wanted * (1 + 1e-9):
        return []
    return [
        f"the learning rate is {rate:.4g}, and not {name}={wanted:g}, with which the reference's "
        f"noise scale needs a batch below one ghost batch of {config.ghost_batch_size}: use a "
        f"smaller --ghost_batch_size, or a reference with less noise (--base_learning_rate)"
    ]


def _without_effect(config: Config) -> list[str]:
    """Returns a line for each flag of the schedule that is set and changes nothing."""
    found = []
    if config.max_batch_size is not None and not batch_limits.grows(config):
        found.append("--max_batch_size: no effect, because the batch does not grow")
    if config.momentum_to is not None and config.anneal == "constant":
        found.append("--momentum_to: no effect with --anneal=constant")
    if config.batch_anneals != Config.batch_anneals and config.anneal_with != "hybrid":
        found.append("--batch_anneals: no effect without --anneal_with=hybrid")
    if not config.warmup_epochs:
        if config.warmup_from is not None:
            found.append("--warmup_from: no effect without --warmup_epochs")
    elif trajectory.warmup_from(config) == 1:
        found.append(
            "--warmup_epochs: no effect, because the warm-up begins at the full learning rate: use "
            "a lower --warmup_from, such as 0.1, or a larger batch"
        )
    return found


def _sizes(config: Config, phases: Sequence[Phase]) -> list[str]:
    """Returns lines about image sizes if they change or differ from evaluation, otherwise []."""
    evaluated = config.model_image_size
    parts = [(p.updates * p.batch_size, p.image_size) for p in phases if p.image_size]
    if not parts:
        if config.eval_image_size in (None, config.image_size):
            return []
        own = "the dataset's size" if config.image_size is None else f"{config.image_size} pixels"
        return [f"training images have {own}; evaluations, exports and predictions {evaluated}"]
    last = parts[-1][1]
    share = resolution.relative_cost(parts, last)
    asked = image_sizes.sizes(config.image_sizes)
    # The parts of a fork's other run are over: a size ends where the next begins.
    ends = [*image_sizes.starts(config.image_sizes, config.epochs)[1:], config.epochs]
    left = {
        size for size, end in zip(asked, ends, strict=True) if end > phases[0].start_epoch + 1e-9
    }
    unused = sorted(left - {size for _, size in parts})
    return [
        *(
            f"no update has images of {size} pixels, because their part of the run is shorter than "
            "an update: make it longer"
            for size in unused
        ),
        f"evaluations, exports and predictions have images of {evaluated} pixels; training takes "
        f"{share:.0%} of the computation of a run with {last} pixels throughout, if the "
        "computation of an example is proportional to its number of pixels",
    ]
