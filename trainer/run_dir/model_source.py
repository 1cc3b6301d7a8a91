"""What `evaluate` and `export` are asked about, a run or an export, and the flags it was made with.

Those come before the flags of the command line, so that only what shall differ need be given. What
they say of the machine that the run was on is left out.
"""

import os
import pathlib
from collections.abc import Sequence

from trainer.config import command_line
from trainer.config.flagfile import OF_THE_MACHINE, ONE_CALL, learned
from trainer.config.flags import FLAGS, Config
from trainer.errors import UserError
from trainer.run_dir import directory


def run(config: Config) -> pathlib.Path:
    """The directory of the run that --model_dir names, or else the path of one of its checkpoints.

    Raises:
      UserError: where none is named, or it holds no run.
    """
    if config.model_dir is not None:
        folder = pathlib.Path(config.model_dir)
    elif os.sep in config.checkpoint:
        folder = pathlib.Path(config.checkpoint).parent.parent  # <run>/checkpoints/<update>
    else:
        raise UserError("--model_dir is missing: name a run's directory, as in runs/first.")
    if is_export(folder):
        raise UserError(f"{folder} holds an export: `evaluate --export_dir={folder}` takes it.")
    if not (folder / "flags.txt").exists():
        raise UserError(f"{folder} holds no run: there is no flags.txt in it. Name a run's folder.")
    return folder


def run_or_export(config: Config) -> pathlib.Path:
    """The directory of the run or of the export that `evaluate` is asked about.

    Raises:
      UserError: as `run`, where both are named, or --export_dir holds no export.
    """
    if not config.export_dir:
        return run(config)
    if config.model_dir is not None or config.checkpoint != "newest":
        raise UserError(
            "--export_dir is evaluated by itself: leave it out to evaluate a run, or leave out "
            "--model_dir and --checkpoint."
        )
    path = pathlib.Path(config.export_dir)
    folder = path.parent if is_model(path) else path
    if not is_export(folder):
        raise UserError(
            f"--export_dir={path} holds no export: it lacks export.json or flags.txt.\n"
            "`python -m trainer export --model_dir=<run>` makes one and says where."
        )
    return folder


def is_model(path: pathlib.Path) -> bool:
    """Whether `path` names the model.keras of an export, which need not be there, and no export."""
    return path.suffix == ".keras" and not path.is_dir()


def is_export(folder: pathlib.Path) -> bool:
    """Whether `folder` holds what makes an export one."""
    return (folder / "export.json").exists() and (folder / "flags.txt").exists()


def kept_flags(command: str, config: Config) -> list[str]:
    """The flags of what `command` is asked about, as a command line has them; [] for others.

    Raises:
      UserError: where nothing is named that has any, or its flags.txt holds something else.
    """
    if command not in ("evaluate", "export"):
        return []
    folder = run(config) if command == "export" else run_or_export(config)
    try:
        text = directory.kept_flags(folder) or ""
    except OSError as error:
        raise UserError(
            f"{error.filename} cannot be read: {error.strerror}.\n"
            "Put the run's own flags.txt in its place, from a copy."
        ) from error
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    known = {*FLAGS, *(f"no{name}" for name in FLAGS)}
    for line in lines:
        if not line.startswith("--") or _name(line) not in known:
            raise UserError(
                f"{folder}/flags.txt has a line that is not a flag of this version: "
                f"{line[:200]!r}.\n"
                "Correct it, or use the version that wrote it."
            )
    own = [line for line in lines if _name(line) not in ONE_CALL | OF_THE_MACHINE]
    return [f"--order_version={learned(text)['order_version']}", *own]


def with_kept_flags(command: str, config: Config, given: Sequence[str]) -> Config:
    """Returns `config`, of the command line `given`, with the flags that `kept_flags` finds.

    Raises:
      UserError: as `kept_flags`, or they hold a value that this version refuses.
    """
    kept = kept_flags(command, config)
    if not kept:
        return config
    try:
        return command_line.parse(command, given, kept)
    except UserError as error:  # What was given had been taken by itself.
        folder = run(config) if command == "export" else run_or_export(config)
        raise UserError(
            f"{folder}/flags.txt is damaged: {str(error).splitlines()[0]}\n"
            "Correct it, or use the version that wrote it."
        ) from error


def _name(line: str) -> str:
    return line[2:].partition("=")[0]
