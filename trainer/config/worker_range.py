"""Checks the flags of a run whose number of workers follows the batch: --workers."""

from trainer.config.flags import Config
from trainer.errors import UserError


def check(config: Config) -> None:
    """Checks that other flags allow --workers, if it is set.

    Raises:
      UserError: if a launcher cannot change the number of workers; or if a decision would depend on
        time, which --deterministic excludes.
    """
    if config.workers is None:
        return
    if config.strategy != "multi_worker":
        raise UserError(
            f"--workers={config.workers} needs a launcher that starts so many workers.\n"
            f"Use scripts/launch_local.sh {config.workers} or train.sbatch, or leave --workers out."
        )
    if config.deterministic and not config.plan_examples_per_second:
        raise UserError(
            f"--workers={config.workers} depends on the speed that the run measures, and "
            "--deterministic excludes such a choice.\n"
            "Give --plan_examples_per_second of one replica, or leave one of the two out."
        )
