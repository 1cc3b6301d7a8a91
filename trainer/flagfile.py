"""The flags of a run as a flagfile: what replays it, and what may differ when it goes on.

A run may not be resumed with other flags than it was started with, but for those in `FREE`, which
change nothing that is learned.
"""

import re
from collections.abc import Sequence

from trainer.config import NEWEST_ORDER, Config, defaults, names

# Letters of a line in a message, and differences: more do not help.
_LONG, _FEW = 200, 10

# Of one call, and not of the run.
ONE_CALL = frozenset(
    [
        "stop_at_epoch",
        "checkpoint",
        "export_dir",
        "format",
        "plot",
        "replicas",
        "hosts",
        "examples_per_second",
        "parameters",
        "link_bandwidth",
        "link_latency",
        "sweep",
        "sweep_part",
        "sweep_parallel",
        "sweep_retry",
        "runs",
        "output",
        "pictures",
    ]
)

# Those, and where things lie, how they are laid out, watched and shown.
FREE = ONE_CALL | frozenset(
    [
        "model_dir",
        "data_dir",
        "skip_bad_examples",
        "max_image_pixels",
        "train_examples",
        "micro_batch_size",
        "strategy",
        "virtual_devices",
        "tpu",
        "tpu_zone",
        "tpu_project",
        "worker_timeout",
        "deterministic",
        "checkpoint_minutes",
        "keep_checkpoints",
        "eval_every_epochs",
        "log_every_updates",
        "noise_horizon",
    ]
)

# But for what a controller decides by, by the value of --anneal.
DECIDES = {
    "plateau": frozenset(["eval_every_epochs"]),
    "measured": frozenset(["micro_batch_size", "noise_horizon"]),
}


def to_flagfile(config: Config) -> str:
    """The flagfile that replays the run of `config`.

    A line a flag, but for those that are None, and those that are of one call and not of the run.
    Of a run, `config` has an order version: without a line, it would be 1.
    """

    def line(name: str, value: object) -> str:
        if isinstance(value, bool):
            return f"--{name}" if value else f"--no{name}"
        return f"--{name}={','.join(value) if isinstance(value, list) else value}"

    values = {name: getattr(config, name) for name in names() if name not in ONE_CALL}
    return "".join(f"{line(k, v)}\n" for k, v in values.items() if v is not None)


def order_version(config: Config, kept: str | None) -> int:
    """Returns a run's version of the order: what the user asked for, its own, or a new run's.

    Args:
      config: of the command line.
      kept: the run's flags.txt; None: it has none yet.
    """
    if config.order_version is not None or kept is None:
        return config.order_version or NEWEST_ORDER
    own = learned(kept)["order_version"]
    return int(own) if own in ("1", str(NEWEST_ORDER)) else NEWEST_ORDER


def shared(config: Config) -> list[str]:
    """The flags that all workers of a run have the same: all but where things lie on each."""
    own = ("model_dir", "data_dir")
    return [f"--{name}={getattr(config, name)}" for name in names() if name not in own]


def learned(text: str) -> dict[str, str]:
    """What a flagfile of `to_flagfile` says that changes what is learned, by flag.

    A flag that it lacks is younger than it, and had its default; but the order of examples had
    version 1 before there was a flag for it.
    """
    values = {**_read(to_flagfile(defaults())), "order_version": "1", **_read(text)}
    free = FREE - DECIDES.get(values.get("anneal", ""), frozenset())
    spelled = free | {f"no{name}" for name in free}
    return {name: value for name, value in values.items() if name not in spelled}


def learned_differences(old: str, new: str) -> list[str]:
    """What two flagfiles of `to_flagfile` disagree on that changes what is learned."""
    before, now = learned(old), learned(new)
    return [
        f"--{name}: {before.get(name, 'unset')} → {now.get(name, 'unset')}"
        for name in dict.fromkeys([*before, *now])
        if before.get(name) != now.get(name)
    ]


def not_a_flag(text: str) -> str:
    """Says which line of a run's flags.txt cannot be one of a flag; "" if all can."""
    for number, line in enumerate(text.splitlines(), start=1):
        blank = not line.strip() or line.startswith("#")
        if not (blank or re.match("--[a-z]", line)) or "\0" in line or "\ufffd" in line:
            return f"line {number}, {line[:_LONG]!r}, is not a flag"
    return ""


def listed(differences: Sequence[str]) -> str:
    """The first of some differences, each short, and how many more there are."""
    said = "; ".join(
        each if len(each) < _LONG else f"{each[:_LONG]}…" for each in differences[:_FEW]
    )
    more = len(differences) - _FEW
    return f"{said}; and {more} more" if more > 0 else said


def _read(text: str) -> dict[str, str]:
    pairs = (line[2:].partition("=") for line in text.splitlines())
    return {name: value for name, _, value in pairs}
