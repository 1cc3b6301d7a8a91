"""Finds the run or export that `evaluate`, `export` or `predict` reads, and its flags.

The flags of the run are the defaults for this call, so the user gives only flags that differ. Flags
that describe the machine on which the run was trained are left out.
"""

import dataclasses
import os
import pathlib
from collections.abc import Sequence

from trainer.buckets.url import parse as parse_url
from trainer.config import command_line
from trainer.config.flagfile import OF_THE_MACHINE, ONE_CALL, learned, recorded_precision
from trainer.config.flags import FLAGS, Config
from trainer.config.model_flags import AUTO
from trainer.errors import UserError
from trainer.run_dir import directory

_READING = ("evaluate", "export", "predict")


def run(config: Config) -> pathlib.Path:
    """Returns the run directory --model_dir, or else the run directory that holds --checkpoint.

    Raises:
      UserError: if no directory is named, or the directory is not a run directory.
    """
    if config.model_dir is not None:
        folder = pathlib.Path(config.model_dir)
    elif os.sep in config.checkpoint:
        folder = pathlib.Path(config.checkpoint).parent.parent  # <run>/checkpoints/<update>
    else:
        raise UserError(
            "--model_dir is missing: name a run's directory, as in runs/first; evaluate and "
            "predict also take an export, --export_dir."
        )
    if is_export(folder):
        raise UserError(
            f"{folder} is an export: use `evaluate --export_dir={folder}`, or `predict` with this "
            "flag."
        )
    if not (folder / "flags.txt").exists():
        raise UserError(
            f"{folder} is not a run directory: it has no flags.txt. Name the directory of a run."
        )
    return folder


def run_or_export(config: Config) -> pathlib.Path:
    """Returns the directory of the run or export that `evaluate` or `predict` uses.

    Raises:
      UserError: if no run or export is named, or if both a run and an export are named. Also if the
        named directory is not a run or an export.
    """
    if not config.export_dir:
        return run(config)
    if config.model_dir is not None or config.checkpoint != "newest":
        raise UserError(
            "--export_dir excludes --model_dir and --checkpoint: leave --export_dir out to "
            "use a run, or the other two to use an export."
        )
    path = pathlib.Path(config.export_dir)
    folder = path.parent if is_model(path) else path
    if not is_export(folder):
        raise UserError(
            f"--export_dir={path} is not an export: it lacks export.json or flags.txt.\n"
            "Make one with `python -m trainer export --model_dir=<run>`, which prints its path."
        )
    return folder


def as_asked(config: Config, text: str) -> str:
    """Returns `text` with the URL of a run in a bucket in place of the path of its local copy."""
    url = parse_url(config.given.get("model_dir", "").partition("=")[2])
    return text.replace(config.model_dir, str(url)) if url and config.model_dir else text


def is_model(path: pathlib.Path) -> bool:
    """Returns whether `path` ends in .keras and is not a folder; `path` need not exist."""
    return path.suffix == ".keras" and not path.is_dir()


def is_export(folder: pathlib.Path) -> bool:
    """Returns whether `folder` is an export: it has an export.json and a flags.txt."""
    return (folder / "export.json").exists() and (folder / "flags.txt").exists()


def kept_flags(command: str, config: Config) -> list[str]:
    """Returns the flags of the run or export that `command` reads, as command-line arguments.

    Returns [] for commands other than `evaluate`, `export` and `predict`.

    Raises:
      UserError: if no run or export is named, or its flags.txt is damaged.
    """
    if command not in _READING:
        return []
    lines = recorded_flags(_source(command, config))
    return [line for line in lines if name_of(line) not in OF_THE_MACHINE]


def recorded_flags(folder: pathlib.Path) -> list[str]:
    """Returns the flags of the run or export in `folder`, as command-line arguments.

    The result has --order_version and --precision even if flags.txt is older than these flags, and
    lacks flags that apply to one call.

    Raises:
      UserError: if flags.txt is damaged or cannot be read.
    """
    try:
        text = directory.kept_flags(folder) or ""
    except OSError as error:
        raise UserError(
            f"{error.filename} cannot be read: {error.strerror}.\n"
            "Restore the run's flags.txt from a copy."
        ) from error
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    known = {*FLAGS, *(f"no{name}" for name in FLAGS)}
    for line in lines:
        if not line.startswith("--") or name_of(line) not in known:
            raise UserError(
                f"{folder}/flags.txt has a line that is not a flag of this version: "
                f"{line[:200]!r}.\n"
                "Correct it, or use the version that wrote it."
            )
    own = [line for line in lines if name_of(line) not in ONE_CALL]
    version, precision = learned(text)["order_version"], recorded_precision(text)
    own = [line for line in own if name_of(line) != "precision"]
    return [f"--order_version={version}", f"--precision={precision}", *own]


def with_kept_flags(command: str, config: Config, given: Sequence[str]) -> Config:
    """Returns `config` with the flags of the run or export in place of the default values.

    `given` is the command line from which `config` was parsed.

    Raises:
      UserError: if `kept_flags` raises a UserError, or this version rejects a flag of the run or
        export.
    """
    kept = kept_flags(command, config)
    if not kept:
        return config
    if "image_size" in config.given and "eval_image_size" not in config.given:
        # The --image_size of this call replaces the --eval_image_size of the run.
        kept = [line for line in kept if name_of(line) != "eval_image_size"]
    try:
        parsed = command_line.parse(command, given, kept)
    except UserError as error:  # `given` alone was parsed before, so a kept flag is wrong.
        raise UserError(
            f"{_source(command, config)}/flags.txt is damaged: {str(error).splitlines()[0]}\n"
            "Correct it, or use the version that wrote it."
        ) from error
    if parsed.precision != AUTO:
        return parsed
    # --precision=auto on the command line means the precision of the run.
    return dataclasses.replace(parsed, precision=recorded_precision("\n".join(kept)))


def _source(command: str, config: Config) -> pathlib.Path:
    return run(config) if command == "export" else run_or_export(config)


def name_of(line: str) -> str:
    """Returns the name of the flag in `line`, as in --name=value."""
    return line[2:].partition("=")[0]
