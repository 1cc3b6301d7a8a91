"""Describes the machines for which `plan` predicts the duration of a run.

This module does not import TensorFlow, because that takes four seconds.
"""

import pathlib
import sys
from typing import Any

from trainer.config import image_sizes, number_range
from trainer.config.flags import Config
from trainer.errors import UserError
from trainer.run_dir import result
from trainer.schedule import cost
from trainer.system.output import say
from trainer.system.typed_json import DamagedError, problem


def machines(config: Config, replicas: int, hosts: int) -> cost.Machines | None:
    """Returns the machines of the run; None if no cost is requested or the speed is unknown.

    Raises:
      UserError: if the speed comes from a run in --model_dir that had several hosts. Also if the
        plan has several hosts, and the number of the model's parameters is unknown.
    """
    if not asks_for_cost(config):
        return None
    most = number_range.parse(config.workers).last if config.workers else hosts
    ended = _ended(pathlib.Path(config.model_dir)) if config.model_dir else {}
    size = image_sizes.sizes(config.image_sizes)[-1] if config.image_sizes else None
    if config.plan_examples_per_second:
        compute = cost.Compute(example=1 / config.plan_examples_per_second)
    elif ended.get("update_seconds"):
        if ended["hosts"] > 1:
            raise UserError(
                f"{config.model_dir} was trained by {ended['hosts']} hosts, so its speed includes "
                "communication.\n"
                "Name a run of one host, or pass --plan_examples_per_second of one replica."
            )
        compute = cost.measured(ended["update_seconds"], ended["replicas"])
        size = _size_of_times(config.model_dir, ended.get("image_size"), size)
    else:
        return None
    parameters = config.plan_parameters or ended.get("parameters")
    if most > 1 and not parameters:
        flag = f"--workers={config.workers}" if config.workers else f"--plan_hosts={hosts}"
        raise UserError(
            f"{flag} needs the number of the model's parameters, which the hosts sum in each "
            "update.\nPass --plan_parameters, or --model_dir of a finished run."
        )
    return cost.Machines(
        replicas=replicas,
        hosts=hosts,
        compute=compute,
        parameters=parameters or 0,
        bandwidth=config.plan_link_bandwidth,
        latency=config.plan_link_latency,
        image_size=size,
    )


def _size_of_times(run: str | None, measured: int | None, planned: int | None) -> int | None:
    """Returns the side of the images, in pixels, for which the update times of `run` hold.

    `measured` is the last size in `run`, and `planned` the last size in the plan. Each is None if
    the size does not change. If only one of the two is None, a note on stderr names the other size.
    """
    if measured is None and planned is not None:
        note = f"the update times of {run} are assumed to hold for images of {planned} pixels"
    elif measured is not None and planned is None:
        note = f"the update times of {run} hold for images of {measured} pixels"
    else:
        return measured
    say(f"crescendo plan: {note}", to=sys.stderr)
    return measured or planned


def _ended(folder: pathlib.Path) -> dict[str, Any]:
    """Returns the result of the run in `folder`; {} if the result is missing or damaged."""
    try:
        return result.read(folder) or {}
    except (DamagedError, OSError) as error:
        note = f"{folder / result.FILE} {problem(error)}; its times are not known."
        say(f"crescendo plan: {note}", to=sys.stderr)
        return {}


def asks_for_cost(config: Config) -> bool:
    """Returns whether flags ask for the duration; --model_dir alone may only name a run to plan."""
    machines = (config.plan_replicas, config.plan_hosts, config.workers)
    return any(value is not None for value in (*machines, config.plan_examples_per_second))
