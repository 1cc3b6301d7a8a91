"""Runs a command in the caller's process: prepares the process, and makes the command's Config."""

import contextlib
import dataclasses
import os
import sys
from collections.abc import Iterator, Sequence

from trainer.config import command_line
from trainer.config.flags import Config
from trainer.data.bucket import open_folders
from trainer.errors import UserError
from trainer.run_dir import bucket_reading, model_source
from trainer.system import output


@contextlib.contextmanager
def configured(name: str, flags: Sequence[str], log_as: str | None) -> Iterator[Config]:
    """Yields the Config of the command `name`, with the flags of the run that it reads.

    While the context lasts, a run that is in a bucket has a local copy.

    Args:
      name: name of the command.
      flags: the command line after the command's name.
      log_as: name in front of messages, which then go to stderr; None: messages go to stdout.

    Raises:
      UserError: if a flag is wrong, or the run or export cannot be read.
    """
    asked = command_line.parse(name, flags)
    output.log_to(log_as)
    open_folders.keep_in(asked.cache_dir)
    with bucket_reading.local_runs(name, asked) as local:
        config = model_source.with_kept_flags(name, local, flags)
        yield dataclasses.replace(config, model_dir=local.model_dir, runs=local.runs)


def prepare_keras() -> None:
    """Makes Keras use TensorFlow; must run before TensorFlow or Keras is imported here.

    Raises:
      UserError: if Keras is already imported with another backend.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # Hides TensorFlow's start-up messages.
    keras = sys.modules.get("keras")
    if keras is None:
        os.environ["KERAS_BACKEND"] = "tensorflow"
    elif (backend := keras.backend.backend()) != "tensorflow":
        raise UserError(
            f"Keras is already imported with the backend {backend}, and this program needs "
            "tensorflow.\n"
            "Set KERAS_BACKEND=tensorflow before Keras is imported, and start Python again."
        )
