"""Writes and compares flags.txt, the flagfile that replays a run.

A resumed run must have the flags that it was started with, except the flags in `FREE`. Flags in
`FREE` do not change what is learned, with one exception: at some values of --anneal, the flags in
`DECIDES` change it. At these values, a resumed run must keep the flags in `DECIDES` too.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

from trainer.config.declaration import Scope
from trainer.config.flags import FLAGS, Config
from trainer.config.model_flags import AUTO, BFLOAT16, FLOAT32
from trainer.config.run_flags import NEWEST_ORDER

# A message shows up to _LONG characters of a line, and lists up to _FEW differences.
_LONG, _FEW = 200, 10


def _of(*scopes: Scope) -> frozenset[str]:
    return frozenset(name for name, flag in FLAGS.items() if flag.scope in scopes)


# Flags that apply to one call of the program, and are not kept with the run.
ONE_CALL = _of(Scope.CALL)
# Flags that `evaluate`, `export` and `predict` do not take from the run.
OF_THE_MACHINE = _of(Scope.MACHINE)
# Flags that may have other values when a run is resumed, unless they are in `DECIDES`.
FREE = _of(Scope.CALL, Scope.MACHINE, Scope.FREE)
# At some values of --anneal, a controller changes the schedule during the run. This maps each such
# value to the flags in FREE on which the controller's decisions depend.
DECIDES = {
    anneal: frozenset(name for name, flag in FLAGS.items() if flag.decides == anneal)
    for anneal in {flag.decides for flag in FLAGS.values()} - {None}
}
# Some of the flags that every version of this program writes into flags.txt.
_IN_EVERY_RUN = {
    *("dataset", "train_split", "model", "augment", "epochs", "seed", "optimizer", "weight_decay"),
    *("base_learning_rate", "base_batch_size", "anneal", "anneal_with"),
    *("ghost_batch_size", "ghost_decay", "keep_checkpoints"),
}


def is_of_version_1(lines: Iterable[str]) -> bool:
    """Returns whether `lines` are the flags.txt of a run that is older than --order_version.

    Such a run has version 1 of the order of examples. Its flags.txt has all flags of
    `_IN_EVERY_RUN`, but lacks --order_version. A recipe has only a few of these flags.
    """
    named = set(_read(lines))
    return named >= _IN_EVERY_RUN and "order_version" not in named


def to_flagfile(config: Config) -> str:
    """Returns the flagfile that replays the run of `config`.

    The flagfile has no line for a flag that is None or in `ONE_CALL`. A flags.txt without
    --order_version means version 1. So `config` must have an --order_version if the result becomes
    the flags.txt of a run.
    """

    def line(name: str, value: object) -> str:
        if isinstance(value, bool):
            return f"--{name}" if value else f"--no{name}"
        return f"--{name}={','.join(value) if isinstance(value, tuple) else value}"

    values = {name: getattr(config, name) for name in FLAGS if name not in ONE_CALL}
    return "".join(f"{line(k, v)}\n" for k, v in values.items() if v is not None)


def order_version(config: Config, kept: str | None) -> int:
    """Returns --order_version: from the command line, or else from flags.txt, or else the newest.

    Args:
      config: the parsed command line.
      kept: the text of the run's flags.txt, or None for a new run.
    """
    if config.order_version is not None or kept is None:
        return config.order_version or NEWEST_ORDER
    own = learned(kept)["order_version"]
    return int(own) if own in ("1", str(NEWEST_ORDER)) else NEWEST_ORDER


def shared(config: Config) -> list[str]:
    """Returns the flags that all workers must share: all except those that name folders."""
    own = ("model_dir", "data_dir", "cache_dir")
    return [f"--{name}={getattr(config, name)}" for name in FLAGS if name not in own]


def learned(text: str) -> dict[str, str]:
    """Returns the values in a flags.txt that change what is learned, by flag.

    The file may be older than a flag, so a flag without a line has its default value. There are two
    exceptions: a missing --order_version means 1, and a missing --precision means float32.
    """
    old = values_in(text)
    oldest = {"order_version": "1", "precision": FLOAT32}
    values = _read(to_flagfile(Config()).splitlines()) | oldest | old
    values["evaluate_with"] = evaluated_with(values)  # The default depends on --ema_decay.
    free = FREE - DECIDES.get(values.get("anneal", ""), frozenset())
    spelled = free | {f"no{name}" for name in free}
    return {name: value for name, value in values.items() if name not in spelled}


def evaluated_with(values: Mapping[str, str]) -> str:
    """Returns "plain" or "ema": --evaluate_with in the flags `values`, or else its default."""
    return values.get("evaluate_with", "ema" if "ema_decay" in values else "plain")


def values_in(text: str) -> dict[str, str]:
    """Returns the values in a flags.txt, by flag; the result lacks each flag without a line."""
    return _read(text.splitlines())


def recorded_precision(text: str) -> str:
    """Returns --precision in the flags.txt `text`; float32 if this flag is missing or auto."""
    found = learned(text)["precision"]
    return FLOAT32 if found == AUTO else found


def learned_differences(old: str, new: str) -> list[str]:
    """Returns a text for each difference between two flags.txt that changes what is learned."""
    before, now = learned(old), learned(new)
    before["precision"] = recorded_precision(old)
    if now["precision"] == AUTO and before["precision"] in (FLOAT32, BFLOAT16):
        now["precision"] = before["precision"]  # Here, auto means the precision of the run.
    return [
        f"--{name}: {before.get(name, 'unset')} → {now.get(name, 'unset')}"
        for name in dict.fromkeys([*before, *now])
        if before.get(name) != now.get(name)
    ]


def not_a_flag(text: str) -> str:
    """Returns a message about the first line that a flags.txt cannot have; "" if there is none."""
    for number, line in enumerate(text.splitlines(), start=1):
        blank = not line.strip() or line.startswith("#")
        if not (blank or re.match("--[a-z]", line)) or re.search("[\0\udc80-\udcff]", line):
            return f"line {number}, {line[:_LONG]!r}, is not a flag"
    return ""


def listed(differences: Sequence[str]) -> str:
    """Returns a text with the first ten differences, and the number of further differences."""
    text = "; ".join(
        each if len(each) < _LONG else f"{each[:_LONG]}…" for each in differences[:_FEW]
    )
    more = len(differences) - _FEW
    return f"{text}; and {more} more" if more > 0 else text


def _read(lines: Iterable[str]) -> dict[str, str]:
    """Returns the value of each flag in `lines`, by flag; a line is --name=value."""
    pairs = (line[2:].partition("=") for line in lines)
    return {name: value for name, _, value in pairs}
