"""Makes the Config of a command, for the command line and for Python."""

import contextlib
import dataclasses
import logging
from collections.abc import Iterator, Sequence

from trainer.config import command_line
from trainer.config.flags import Config
from trainer.data.bucket import open_folders
from trainer.run_dir import bucket_reading, fork_source, model_source
from trainer.system import output

TRAINING = ("train", "range_test", "sweep")  # Commands that train.
_ONE_RUN = ("train", "range_test", "plan")  # Commands that ignore a flagfile's --sweep.


@contextlib.contextmanager
def configured(name: str, flags: Sequence[str], *, only_reads: bool = False) -> Iterator[Config]:
    """Yields the Config of the command `name`, with the flags of the run that it reads.

    While the context lasts, a run that is in a bucket has a local copy.

    Args:
      name: name of the command.
      flags: the command line after the command's name.
      only_reads: whether the call writes nothing, although the command `name` may write.

    Raises:
      UserError: if a flag is wrong, or the run or export cannot be read.
    """
    asked = command_line.parse(name, flags)
    # Messages of the other commands go to stderr, with the name in front.
    output.log_to(None if name in TRAINING else name)
    if asked.sweep and name in _ONE_RUN:  # On the command line itself, the flag is refused.
        output.log("--sweep of the flagfile is ignored: the command sweep trains its points")
    open_folders.keep_in(asked.cache_dir)
    with bucket_reading.local_runs(name, asked, only_reads) as local, _quiet_retracing():
        config = model_source.with_kept_flags(name, local, flags)
        config = fork_source.with_parent_flags(name, config, flags)
        yield dataclasses.replace(config, model_dir=local.model_dir, runs=local.runs)


@contextlib.contextmanager
def _quiet_retracing() -> Iterator[None]:
    """Hides TensorFlow's warning that functions of one name are traced, as in several runs."""

    def keep(record: logging.LogRecord) -> bool:
        return "triggered tf.function retracing" not in record.getMessage()

    logger = logging.getLogger("tensorflow")
    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)
