"""Lines that `plan` and `train` print about effects of flags that plan's table does not show."""

from collections.abc import Sequence

from trainer.config import image_sizes, training_targets
from trainer.config.flags import Config
from trainer.schedule import averaging, resolution
from trainer.schedule.plan import Phase


def lines(config: Config, examples: int, phases: Sequence[Phase]) -> list[str]:
    """Returns lines about image sizes, clipping, averaging, mixing and loss, if flags change them.

    Args:
      config: flags of the run.
      examples: number of training examples.
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
    found += averaging.described(config, examples, largest)
    return [*found, *training_targets.described(config)]


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
    unused = sorted({*asked} - {size for _, size in parts})
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
