"""Flagfile of a run, which replays it, and the flags that may differ when the run is resumed.

A run is resumed with the flags that it was started with; only those in `FREE`, which change nothing
that is learned, may differ.
"""

import dataclasses
import re
from collections.abc import Sequence

from trainer.config.declaration import Scope
from trainer.config.flags import FLAGS, Config
from trainer.config.run_flags import NEWEST_ORDER

# Letters of a line in a message, and differences: more do not help.
_LONG, _FEW = 200, 10


def _of(*scopes: Scope) -> frozenset[str]:
    return frozenset(name for name, flag in FLAGS.items() if flag.scope in scopes)


# Flags of one call, which are not kept with the run.
ONE_CALL = _of(Scope.CALL)
# Flags that an evaluation or an export of a run does not take over from it.
OF_THE_MACHINE = _of(Scope.MACHINE)
# Flags that may differ when a run is resumed.
FREE = _of(Scope.CALL, Scope.MACHINE, Scope.FREE)
# Of those, the ones by which a controller decides, by the value of --anneal.
DECIDES = {
    anneal: frozenset(name for name, flag in FLAGS.items() if flag.decides == anneal)
    for anneal in {flag.decides for flag in FLAGS.values()} - {None}
}
# Some of the flags that the flags.txt of every run names, of whatever version.
_IN_EVERY_RUN = frozenset(
    [
        "dataset",
        "train_split",
        "model",
        "augment",
        "epochs",
        "seed",
        "optimizer",
        "weight_decay",
        "base_learning_rate",
        "base_batch_size",
        "anneal",
        "anneal_with",
        "ghost_batch_size",
        "ghost_decay",
        "keep_checkpoints",
    ]
)


def with_precision(config: Config) -> Config:
    """Returns `config` with the precision that an unset one means.

    A run that is resumed on other devices would otherwise learn with another one.
    """
    default = "bfloat16" if config.strategy == "tpu" else "float32"
    return dataclasses.replace(config, precision=config.precision or default)


def defaults() -> Config:
    """Returns the Config of a command line without flags."""
    return with_precision(Config())


def is_of_version_1(text: str) -> bool:
    """Whether a flagfile is the flags.txt of a run from before --order_version, which has 1.

    The flags.txt of a run has a line for every flag with a value, and a recipe for a few.
    """
    named = set(_read(text))
    return named >= _IN_EVERY_RUN and "order_version" not in named


def to_flagfile(config: Config) -> str:
    """Returns the flagfile that replays the run of `config`.

    A line a flag, but for those that are None, and those that are of one call and not of the run.
    Of a run, `config` has an order version: without a line, it would be 1.
    """

    def line(name: str, value: object) -> str:
        if isinstance(value, bool):
            return f"--{name}" if value else f"--no{name}"
        return f"--{name}={','.join(value) if isinstance(value, tuple) else value}"

    values = {name: getattr(config, name) for name in FLAGS if name not in ONE_CALL}
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
    return [f"--{name}={getattr(config, name)}" for name in FLAGS if name not in own]


def learned(text: str) -> dict[str, str]:
    """Returns the values in a flagfile of `to_flagfile` that change what is learned, by flag.

    A flag that it lacks is younger than it, and had its default; but the order of examples had
    version 1 before there was a flag for it.
    """
    values = {**_read(to_flagfile(defaults())), "order_version": "1", **_read(text)}
    free = FREE - DECIDES.get(values.get("anneal", ""), frozenset())
    spelled = free | {f"no{name}" for name in free}
    return {name: value for name, value in values.items() if name not in spelled}


def learned_differences(old: str, new: str) -> list[str]:
    """Returns the differences between two flagfiles that change what is learned."""
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
        if not (blank or re.match("--[a-z]", line)) or re.search("[\0\udc80-\udcff]", line):
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
