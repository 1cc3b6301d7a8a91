"""Limits to the growth of the batch, from the flags and N, the number of training examples."""

from absl import logging

from trainer.config.flags import Config
from trainer.errors import UserError
from trainer.schedule.noise_scale import Setting


def largest_batch(
    config: Config, start: Setting, smallest: int, examples: int, *, warns: bool = True
) -> int:
    """Returns the largest batch size that the schedule may use, in examples.

    The result is --max_batch_size if it is set. Otherwise, it is N/10, rounded down to a multiple
    of `smallest`, but at least the initial batch size.

    Args:
      config: flags of the run.
      start: batch size, learning rate and momentum without annealing and warm-ups.
      smallest: smallest batch of the run, in examples; a momentum warm-up begins with it.
      examples: N, the number of training examples.
      warns: whether to report a result above N/10, and a batch that cannot grow.

    Raises:
      UserError: if --max_batch_size is below the initial batch size, or the result is above N.
    """
    largest = config.max_batch_size
    if largest is None:
        largest = max(start.batch_size, examples // 10 // smallest * smallest)
    if largest < start.batch_size:
        raise UserError(
            f"--max_batch_size={largest} is below the initial batch size {start.batch_size}: "
            f"raise it to {start.batch_size} or more, or lower --initial_batch_size."
        )
    check_fits(largest, examples, "lower --max_batch_size")
    used = largest if grows(config) else start.batch_size
    if warns and config.anneal != "range_test":
        if used > examples / 10:
            logging.warning("%s", _above_a_tenth(config, start, used, examples))
        elif config.max_batch_size is None and grows(config) and largest == start.batch_size:
            reason = (
                f"no multiple of {smallest} lies between the initial batch of {start.batch_size} "
                f"and N/10 = {examples // 10}, a tenth of the {examples:,} training images"
            )
            logging.warning("%s", _cannot_grow(config, start, reason))
    return largest


def grows(config: Config) -> bool:
    """Returns whether the schedule may grow the batch above the initial batch.

    Raises:
      UserError: if `anneal_floor` raises it.
    """
    return config.anneal == "measured" or (config.anneal != "constant" and anneal_floor(config) < 1)


def _cannot_grow(config: Config, start: Setting, reason: str) -> str:
    """Returns a warning that the schedule cannot grow the batch above the initial batch."""
    instead = "" if config.anneal == "measured" else " The learning rate anneals instead."
    remedy = _smaller_start(config, start)
    remedy = f"{remedy[0].upper()}{remedy[1:]}"
    return f"the schedule cannot grow the batch, because {reason}.{instead} {remedy}."


def _smaller_start(config: Config, start: Setting) -> str:
    """Returns what to do for a smaller initial batch."""
    if remedy := _other_flag(config):
        return remedy
    # A batch cannot be below a ghost batch.
    both = start.batch_size == config.ghost_batch_size
    return "use a smaller --initial_batch_size" + (" and --ghost_batch_size" if both else "")


def _other_flag(config: Config) -> str:
    """Returns a remedy if the initial batch follows from another flag; otherwise ""."""
    if config.initial_batch_size is not None:
        return ""
    if config.initial_learning_rate is not None:
        return "lower --initial_learning_rate, or give --initial_batch_size in its place"
    if config.momentum is not None:
        return "lower --momentum, or give --initial_batch_size"
    return ""


def _above_a_tenth(config: Config, start: Setting, largest: int, examples: int) -> str:
    """Returns a warning about a largest batch above N/10 (Smith et al. 2018, section 5)."""
    tenth = f"N/10 = {examples // 10}"
    if not grows(config):
        return (
            f"a batch of {largest} costs accuracy, because it is above {tenth}, a tenth "
            f"of the {examples:,} training images: {_smaller_start(config, start)}."
        )
    if config.max_batch_size is not None:
        return (
            f"--max_batch_size={largest} is above {tenth}: batches above a tenth of the N = "
            f"{examples:,} training examples cost accuracy. Lower --max_batch_size."
        )
    reason = (
        f"the initial batch of {start.batch_size} is not below {tenth}, a tenth of the "
        f"{examples:,} training images"
    )
    return _cannot_grow(config, start, reason)


def check_start(config: Config, start: Setting, examples: int) -> None:
    """Raises a UserError if the initial batch is above `examples`, the number of examples."""
    verb = "give" if config.initial_batch_size is None else "lower"
    remedy = _other_flag(config) or f"{verb} --initial_batch_size"
    check_fits(start.batch_size, examples, remedy)


def check_fits(batch_size: int, examples: int, remedy: str) -> None:
    """Raises a UserError if `batch_size` is above `examples`, the number of training examples."""
    if batch_size > examples:
        raise UserError(
            f"a batch of {batch_size} is larger than the {examples} training examples: {remedy}. "
            f"Take a batch of at most {max(1, examples // 10)}, a tenth of the examples, and a "
            "--ghost_batch_size that divides it."
        )


def anneal_floor(config: Config) -> float:
    """Returns a threshold on the noise-scale factor, the noise scale divided by its initial value.

    As the factor falls from 1 to the threshold, the batch grows. As it falls below the threshold,
    the learning rate falls.

    Raises:
      UserError: if --anneal_with does not fit --scaling or --anneal.
    """
    if config.scaling == "none" and config.anneal_with != "learning_rate":
        raise UserError(
            f"--anneal_with={config.anneal_with} changes the batch size, which has no effect on "
            "the noise scale with --scaling=none: use --anneal_with=learning_rate."
        )
    if config.anneal_with == "hybrid" and config.anneal not in ("step", "plateau"):
        raise UserError(
            f"--anneal_with=hybrid counts annealing steps, but --anneal={config.anneal} has none: "
            "use --anneal=step or plateau, or --anneal_with=batch_size."
        )
    if config.anneal_with == "hybrid":
        return config.anneal_factor**-config.batch_anneals
    return 1.0 if config.anneal_with == "learning_rate" else 0.0
