"""Runs the points of an experiment that have no result yet, and appends a row for each run.

docs/results/NAME.toml lists the points: flags by name, flags that all points share, and seeds. In a
flag, {seed} stands for the seed.
docs/results/NAME.jsonl has one row for each finished run. It is committed, so that the next call
runs only what is missing. A row of other flags does not count. All points of a seed run before the
next seed. With `target`, a top-1, the table shows the seconds of training until an evaluation
reached it. A run that diverges has a row, too, with the message and no top-1.

    python scripts/benchmarks/run_experiment.py modern --minutes=150
    taskset --cpu-list 0 python scripts/benchmarks/run_experiment.py modern --seeds 1
    taskset --cpu-list 1 python scripts/benchmarks/run_experiment.py modern --points decay grow
    python scripts/benchmarks/run_experiment.py modern --table

Calls for other seeds or points may run at the same time, each on its own core.
"""

import argparse
import collections
import datetime
import json
import pathlib
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from experiment_rows import RESULTS, current, flags_of, read_experiment, read_rows

from trainer.config.flagfile_reader import expand
from trainer.errors import ExitStatus, UserError
from trainer.run_dir import lineage
from trainer.run_dir.directory import DIVERGED
from trainer.run_dir.metrics import read
from trainer.sweep.seed_statistics import spread
from trainer.system.cores import usable

_KEPT = (
    *("diverged", "top1", "loss", "updates", "seconds", "examples_per_second"),
    *("plain", "ema", "versions"),
)


def overridden(experiment: dict[str, Any]) -> str:
    """Returns a message about the first flag of a point that a flag of all points overrides.

    Returns "" if there is none. A flagfile of all points counts as a flag that overrides the
    flagfile of a point.

    Raises:
      UserError: if a flagfile cannot be read.
    """
    flags_of_all = experiment["flags"]
    shared = {_name(argument.text) for argument in expand(flags_of_all)} | set(
        map(_name, flags_of_all)
    )
    for point, flags in experiment["points"].items():
        for flag in flags:
            if _name(flag) in shared:
                return (
                    f"{point}: {flag} is overridden by a flag of all points.\n"
                    f"Give --{_name(flag)} to each point, or to all points."
                )
    return ""


def _name(flag: str) -> str:
    """Returns the name of a flag; --nodeterministic has the name of --deterministic."""
    name, equals, _ = flag.lstrip("-").partition("=")
    return name if equals else name.removeprefix("no")


def missing(experiment: dict[str, Any], rows: list[dict[str, Any]]) -> Iterator[tuple[str, int]]:
    """Yields (point, seed) of each run that has no row, seed by seed."""
    done = {(row["point"], row["seed"]) for row in current(experiment, rows)}
    for seed in experiment["seeds"]:
        for point in experiment["points"]:
            if (point, seed) not in done:
                yield point, seed


def run(flags: list[str], seed: int, model_dir: pathlib.Path, seconds: float) -> dict | None:
    """Trains a run, or goes on with it; returns its result, or the message if it diverges.

    Returns None if it does not end within `seconds`. Then it stops with a checkpoint, and the next
    call goes on from there.
    """
    flags = [*(flag.replace("{seed}", str(seed)) for flag in flags), f"--seed={seed}"]
    command = [sys.executable, "-m", "trainer", "train", *flags, f"--model_dir={model_dir}"]
    process = subprocess.Popen(command)
    try:
        status = process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.terminate()
        status = process.wait()
        if status in (ExitStatus.STOPPED, -signal.SIGTERM):
            return None
    if status == ExitStatus.NOT_FINITE:
        return {"diverged": (model_dir / DIVERGED).read_text().partition("\n")[0]}
    if status:
        sys.exit(f"{model_dir} ended with status {status}; its flags: {' '.join(flags)}")
    return json.loads((model_dir / "result.json").read_text())


def begin(model_dir: pathlib.Path, points: list[dict[str, Any]]) -> int:
    """Returns the position at which a run began: not 0 for most forks."""
    found = lineage.read(model_dir)
    # With --fork_position=0, a fork begins at 0.
    return found.position if found and points and found.position < points[0]["position"] else 0


def evaluations(model_dir: pathlib.Path) -> list[tuple[float, float]]:
    """Returns the seconds of training before each evaluation that counts, and its top-1.

    The seconds are those of the updates, without evaluations, checkpoints and tracing; for a fork,
    those of its own updates.
    """
    found: dict[str, list[tuple[float, float]]] = collections.defaultdict(list)
    points = read(model_dir / "metrics.jsonl")
    seconds, position = 0.0, begin(model_dir, points)
    for point in points:
        if point["split"] == "train":
            seconds += (point["position"] - position) / point["examples_per_second"]
            position = point["position"]
        else:
            found[point["split"]].append((round(seconds, 2), point["top1"]))
    return found["eval_ema"] or found["eval"]


def training_losses(model_dir: pathlib.Path) -> list[tuple[float, float]]:
    """Returns the epoch of each evaluation, and the mean training loss since the one before."""
    points = read(model_dir / "metrics.jsonl")
    found, total, examples, before = [], 0.0, 0, begin(model_dir, points)
    for point in points:
        if point["split"] == "train":
            total += point["loss"] * (point["position"] - before)
            examples += point["position"] - before
            before = point["position"]
        elif point["split"] == "eval":
            found.append((round(point["epoch"], 3), round(total / examples, 5)))
            total, examples = 0.0, 0
    return found


def noise_scales(model_dir: pathlib.Path) -> list[tuple[float, ...]]:
    """Returns the epoch, the batch size and the measured gradient noise scales of a run's points.

    The first noise scale is that of the gradient. The second one is that of the gradient as Adam
    scales it; runs with other optimizers have none.
    """
    names = ("gradient_noise_scale", "gradient_noise_scale_adam")
    found = []
    for point in read(model_dir / "metrics.jsonl"):
        measured = [round(point[name], 1) for name in names if point.get(name) is not None]
        if point["split"] == "train" and measured:
            found.append((round(point["epoch"], 3), point["batch_size"], *measured))
    return found


def row(
    point: str, seed: int, flags: list[str], result: dict[str, Any], model_dir: pathlib.Path
) -> dict[str, Any]:
    """Returns the row of a finished run: the point, its flags, the results and the machine."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout
    found = {name: result[name] for name in _KEPT if name in result}
    return {
        "point": point,
        "seed": seed,
        "flags": flags,
        **found,
        "evaluations": evaluations(model_dir),
        "training_losses": training_losses(model_dir),
        "noise_scales": noise_scales(model_dir),
        "processor": _processor(),
        "commit": commit.strip(),
        "date": datetime.date.today().isoformat(),
    }


def table(rows: list[dict[str, Any]], target: float | None = None) -> str:
    """Returns a line for each point: top-1 over the seeds, updates and seconds.

    Runs that diverged are only counted. `target` is a top-1; the line has the mean seconds to it,
    over the runs that reached it.
    """
    by_point = collections.defaultdict(list)
    for each in rows:
        by_point[each["point"]].append(each)
    lines = []
    for point, all_rows in by_point.items():
        found = [each for each in all_rows if "diverged" not in each]
        lost = len(all_rows) - len(found)
        diverged = f"  {lost} diverged" if lost else ""
        if not found:
            lines.append(f"{point:20}{diverged}")
            continue
        accuracy = spread(each["top1"] for each in found)
        seconds = spread(each["seconds"] for each in found)
        assert accuracy
        assert seconds
        plain = spread(each["plain"]["top1"] for each in found if "plain" in each)
        without = f"  plain {plain.percent}" if plain else ""
        lines.append(
            f"{point:20} {accuracy.percent}  {found[0]['updates']:,} updates  {seconds.mean:,.0f} s"
            f"{without}{_to_target(found, target)}{diverged}"
        )
    return "\n".join(lines)


def _to_target(rows: list[dict[str, Any]], target: float | None) -> str:
    """Returns the mean seconds until runs reached the top-1 `target`, and how many did."""
    if target is None:
        return ""
    curves = [each.get("evaluations", []) for each in rows]
    first = [
        min(s for s, top1 in curve if top1 >= target)
        for curve in curves
        if any(top1 >= target for _, top1 in curve)
    ]
    mean = f"{sum(first) / len(first):,.0f} s" if first else "never"
    return f"  to {target:.0%}: {mean} ({len(first)} of {len(rows)})"


def _processor() -> str:
    """Returns the number of usable cores, and the name of the processor as Linux gives it."""
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(usable())} × {names[0] if names else platform.processor()}"


def main() -> None:
    """Runs what is missing, or prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("name", help="name of the experiment, as in docs/results/NAME.toml")
    parser.add_argument("--minutes", type=float, default=150, help="time limit of the call")
    parser.add_argument("--runs", type=pathlib.Path, default=pathlib.Path("runs"), help="folder")
    parser.add_argument("--seeds", type=int, nargs="+", help="run only these seeds")
    parser.add_argument("--points", nargs="+", help="run only these points, in this order")
    parser.add_argument("--table", action="store_true", help="print the results, and run nothing")
    options = parser.parse_args()
    experiment = read_experiment(options.name)
    path = RESULTS / f"{options.name}.jsonl"
    end = time.monotonic() + 60 * options.minutes
    points = options.points or experiment["points"]
    if unknown := set(points) - set(experiment["points"]):
        parser.error(f"{options.name} has no point {', '.join(sorted(unknown))}")
    try:
        message = "" if options.table else overridden(experiment)
    except UserError as error:
        message = str(error)
    if message:
        parser.error(message)
    asked = experiment | {
        "seeds": options.seeds or experiment["seeds"],
        "points": {point: experiment["points"][point] for point in points},
    }
    # Other calls add rows meanwhile, so the file is read before each run.
    while not options.table and (due := next(missing(asked, read_rows(path)), None)):
        point, seed = due
        flags = flags_of(experiment, point)
        model_dir = options.runs / options.name / f"{point}_{seed}"
        left = end - time.monotonic()
        result = run(flags, seed, model_dir, left) if left > 0 else None
        if result is None:
            break
        with path.open("a") as file:
            file.write(json.dumps(row(point, seed, flags, result, model_dir)) + "\n")
    print(table(current(experiment, read_rows(path)), experiment.get("target")))


if __name__ == "__main__":
    main()
