"""Lines about flags that a table of phases does not show; `plan` and `train` print the same."""

from trainer.config import training_targets
from trainer.config.flags import Config
from trainer.schedule import averaging


def lines(config: Config, examples: int, largest_batch: int) -> list[str]:
    """Returns one line for each of clipping, averaging, mixing and the loss that flags change.

    Args:
      config: flags of the run.
      examples: N.
      largest_batch: largest batch of the run, in examples.

    Raises:
      UserError: if --evaluate_with=ema is given without --ema_decay.
    """
    found = []
    if config.clip_norm is not None:
        found.append(
            f"--clip_norm={config.clip_norm:g} depends on the batch size: larger batches have "
            "shorter gradients, and are clipped less"
        )
    found += averaging.described(config, examples, largest_batch)
    return [*found, *training_targets.described(config)]
