"""Checks that a call asks for the devices with which this process has already set up TensorFlow."""

import dataclasses
from collections.abc import Collection

from trainer.config.flags import Config
from trainer.distributed import process_devices
from trainer.errors import UserError

MULTI_WORKER = "multi_worker"


def check_to_train(function: str, config: Config) -> None:
    """Checks that `config` has the devices and the determinism of this process's first call.

    Raises:
      UserError: if a value differs, or one of the two calls is one of several workers.
    """
    first = process_devices.first()
    if first is None:
        return
    for name, before in dataclasses.asdict(first).items():
        now = getattr(config, name)
        if now != before:
            raise UserError(
                f"{function} asks for {name}={now!r}, and TensorFlow was set up in this process "
                f"with {name}={before!r}, which it cannot change.\n"
                f"Start Python again, or give {name}={before!r}."
            )
    if config.strategy == MULTI_WORKER:
        raise UserError(
            f"{function} cannot join the workers of strategy='{MULTI_WORKER}' twice in one "
            "process.\nStart Python again for each such run."
        )


def to_read(config: Config, asked: Collection[str]) -> Config:
    """Returns `config` with this process's devices, except for the flags in `asked`."""
    first = process_devices.first()
    if first is None:
        return config
    kept = {name: value for name, value in dataclasses.asdict(first).items() if name not in asked}
    return dataclasses.replace(config, **kept)
