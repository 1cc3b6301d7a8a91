"""sweep: trains one run for each point of a grid of flags, each run in its own process.

A point is one combination of values of the flags that --sweep names.
"""

import contextlib
import dataclasses
import functools
import json
import pathlib
import sys
from collections.abc import Mapping, Sequence

from absl import logging

from trainer.buckets.url import parse
from trainer.commands import plan
from trainer.config import command_line
from trainer.config.flagfile import ONE_CALL, to_flagfile
from trainer.config.flags import FLAGS, Config
from trainer.config.model_flags import AUTO
from trainer.data.tfds import sizes
from trainer.errors import ExitStatus, TryAgainError, UserError
from trainer.run_dir import result
from trainer.run_dir.directory import DamagedRunError
from trainer.sweep import grid, outcomes, runner, table
from trainer.sweep.bucket_folder import BucketSweepFolder
from trainer.sweep.sweep_folder import SweepFolder
from trainer.system.output import log, log_to, say

_AUTO = f"--precision={AUTO}"


def run(config: Config) -> int:
    """Trains the unfinished points, prints a table of all points, and returns the exit status.

    Raises:
      UserError: if --sweep is not a grid, or --model_dir exists and is not the folder of a sweep.
    """
    if config.sweep is None:
        raise UserError('--sweep is missing: name the grid, as in --sweep="momentum=0.9,0.98".')
    if config.model_dir is None:
        raise UserError("--model_dir is missing: name the sweep's folder, as in runs/sweep.")
    if config.format == "json":
        log_to("sweep")
    points = grid.parse(config.sweep)
    shard = grid.part(points, config.sweep_shard)
    url = parse(config.model_dir)
    if url:
        folder: SweepFolder = BucketSweepFolder(url, config.cache_dir, points)
    else:
        folder = SweepFolder(pathlib.Path(config.model_dir))
    with contextlib.ExitStack() as stack:  # Hides warnings that each run will print itself.
        stack.callback(logging.set_verbosity, logging.get_verbosity())
        logging.set_verbosity(logging.ERROR)
        runs, wrong, damaged = checked(config, points, folder)
    if wrong:
        say(_wrong(wrong, len(points)), to=sys.stderr)
        return ExitStatus.USER_ERROR
    runs = _with_precision([each for each in runs if each.point in shard], folder, points)
    finished = sum(row.results is not None for row in _rows(points, folder.path, damaged))
    if finished:
        log(f"{finished} of {len(points)} points are finished")
    for name, message in damaged.items():
        log(f"{name} is left out: {message.partition(chr(10))[0]}")
    stopped = runner.run_sweep(
        runs,
        folder,
        parallel=config.sweep_parallel,
        retry=config.sweep_retry,
    )
    missing = folder.finish(stopped)
    rows = _rows(points, folder.path, damaged)
    if config.format == "json":
        cells = table.cells(rows)
        values = {"points": rows, "cells": cells, "best": table.best(cells)}
        say(json.dumps(values, default=dataclasses.asdict))
    else:
        say("\n" + table.text(rows))
    if missing:
        raise TryAgainError(missing)
    return ExitStatus.STOPPED if stopped else _status([row for row in rows if row.flags in shard])


def checked(
    asked: Config, points: Sequence[grid.Point], folder: SweepFolder
) -> tuple[list[runner.Run], dict[str, list[grid.Point]], dict[str, str]]:
    """Checks the points of a sweep in `folder`.

    A run has three sources of flags: the point's --flagfile, then the command line `asked`, then
    the point's other flags. A later flag overrides an earlier one.

    Returns:
      A list of the runs of all points without errors, a dict from each error message to the points
      that have this error, and a dict from each damaged run's folder name to its error message.
    """
    # A flagfile on the command line may hold flags of other commands, which a run does not take.
    given = [text for name, text in asked.given.items() if "sweep" in FLAGS[name].commands]
    count_examples = functools.cache(sizes.count_examples)
    runs: list[runner.Run] = []
    wrong: dict[str, list[grid.Point]] = {}
    damaged: dict[str, str] = {}
    for number, point in enumerate(points, start=1):
        name = grid.folder(point)
        recipe = [f"--flagfile={point['flagfile']}"] if "flagfile" in point else []
        others = [f"--{flag}={value}" for flag, value in point.items() if flag != "flagfile"]
        try:
            _check_can_be_swept(point)
            flags = [*recipe, *given, *others, f"--model_dir={folder.model_dir(name)}"]
            config = command_line.parse("sweep", flags)
            command_line.check_together("sweep", config)
            if config.strategy == "multi_worker":
                raise UserError(
                    "--strategy=multi_worker is for train: give each machine a --sweep_shard."
                )
            # A point's flagfile may hold flags of plan, which its run does not take.
            of_run = dataclasses.replace(config, plan_replicas=None, plan_hosts=None, workers=None)
            plan.planned(of_run, count_examples)
            folder.check(name, config)
        except DamagedRunError as error:
            damaged[name] = str(error)
            continue
        except UserError as error:
            wrong.setdefault(str(error), []).append(point)
            continue
        # These flags lack --order_version, so that `train` keeps the version of an existing run.
        flags = to_flagfile(config).splitlines()
        if config.stop_at_epoch is not None:
            flags.append(f"--stop_at_epoch={config.stop_at_epoch}")
        runs.append(runner.Run(point, flags, config, f"[{number}/{len(points)}] {name}"))
    return runs, wrong, damaged


def _with_precision(
    runs: Sequence[runner.Run], folder: SweepFolder, points: Sequence[grid.Point]
) -> list[runner.Run]:
    """Begins the sweep in `folder`; returns `runs` with one precision in place of auto.

    The runs of a sweep are compared, and different machines may train them. So all new runs with
    --precision=auto get the same precision. A run that began before keeps its own precision.
    """

    def asks(run: runner.Run) -> bool:
        # With these flags, the precision does not depend on the hardware.
        decided = {"--deterministic", "--strategy=tpu"} & {*run.flags}
        begun = (folder.path / grid.folder(run.point) / "flags.txt").exists()
        return _AUTO in run.flags and not decided and not begun

    chosen = folder.begin(points)
    if not any(map(asks, runs)):
        return [*runs]
    reason = "the sweep began with this precision"
    if chosen is None:
        from trainer.training import precision  # Imports TensorFlow.

        choice = precision.of_this_machine_in_a_process()
        chosen = folder.begin(points, choice.precision)
        if chosen == choice.precision:  # Otherwise, another process of the sweep chose first.
            reason = choice.reason
    log(f"new points compute in {chosen}, because {reason}")

    def with_own(run: runner.Run) -> runner.Run:
        flags = [f"--precision={chosen}" if flag == _AUTO else flag for flag in run.flags]
        return dataclasses.replace(run, flags=flags)

    return [with_own(each) if asks(each) else each for each in runs]


def _check_can_be_swept(point: grid.Point) -> None:
    """Refuses to sweep --model_dir, or a flag that is not kept with a run."""
    for name in point:
        if name == "model_dir" or name in ONE_CALL:
            raise UserError(f"--{name} cannot be swept: it belongs to one call, not to a run.")


def _wrong(wrong: Mapping[str, Sequence[grid.Point]], of: int) -> str:
    """Returns a message that lists each problem below the names of the points that have it."""
    count = sum(map(len, wrong.values()))
    lines = [f"crescendo sweep: {count} of {of} points are wrong; nothing was started."]
    for message, points in wrong.items():
        lines += [grid.folder(point) for point in points]
        lines += [f"  {line}" for line in message.splitlines()]
    return "\n".join(lines)


def _rows(
    points: Sequence[grid.Point], path: pathlib.Path, damaged: Mapping[str, str]
) -> list[table.Row]:
    """Returns a row for each point; a damaged run has status 2 and its error message."""
    recorded = outcomes.read(path)
    rows = []
    for point in points:
        name = grid.folder(point)
        if name in damaged:
            outcome, ended = outcomes.Outcome(DamagedRunError.status, damaged[name]), None
        else:
            outcome = recorded.get(name, outcomes.Outcome())
            ended = result.ended(path / name)
        results = {key: ended[key] for key in result.RESULTS} if ended else None
        counts = ended.get("evaluated_with") if ended else None
        rows.append(table.Row(name, point, outcome.status, outcome.reason, results, counts))
    return rows


def _status(rows: Sequence[table.Row]) -> int:
    """Returns 0 if all points are finished, or else the status of an unfinished run."""
    unfinished = [outcomes.Outcome(row.status) for row in rows if not row.results]
    unfinished.sort(key=lambda outcome: not outcome.failed)  # Failed runs come first.
    # A status is missing if sweep.json could not be written.
    statuses = (ExitStatus.NOT_SAVED if e.status is None else e.status for e in unfinished)
    return next(filter(None, statuses), 0)
