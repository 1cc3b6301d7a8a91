"""From a Config to a whole run: devices, data, schedule, model, step and loop put together."""

import pathlib
from collections.abc import Callable, Iterator
from typing import Any

from trainer import loop, micro_batch
from trainer.classifier import build, devices, load, training_data_of, values, versions
from trainer.config import Config, UserError
from trainer.data import pipeline, sources
from trainer.data.bad_examples import BadExamples
from trainer.evaluation import evaluator
from trainer.flagfile import to_flagfile
from trainer.run_dir import directory, training_data
from trainer.run_dir.checkpoints import Checkpoints, digest
from trainer.run_dir.progress import Progress
from trainer.run_dir.summaries import Summaries
from trainer.schedule import plan, trajectory
from trainer.schedule.layout import unmeasured
from trainer.state import restore
from trainer.step import TrainingStep


def train(config: Config, path: pathlib.Path, stopped: Callable[[], bool]) -> dict[str, Any] | None:
    """Trains to the end and returns what result.json holds; None where `stopped` came before.

    Raises:
      UserError: for what cannot be trained, before any training; for an example that cannot be
        decoded, when it is met.
    """
    bad = BadExamples(config.skip_bad_examples, path / "bad_examples.txt", Progress.line)
    with bad.explained():
        return _train(config, path, stopped, bad)


def _train(
    config: Config, path: pathlib.Path, stopped: Callable[[], bool], bad: BadExamples
) -> dict[str, Any] | None:
    strategy, lanes = devices(config)
    replicas = strategy.num_replicas_in_sync
    training, evaluation = (
        load(config, split, bad) for split in (config.train_split, sources.evaluation_split(config))
    )
    examples = training.examples
    if config.train_examples not in (None, examples):
        raise UserError(
            f"--train_examples={config.train_examples}, but {config.dataset}'s "
            f"{config.train_split!r} has {examples}: leave it out, it is for `plan`."
        )
    schedule = trajectory.from_config(config, examples, replicas)
    data = training_data_of(config, path, bad, training)
    model = build(config, data, strategy)
    step = TrainingStep(
        strategy,
        model,
        optimizer=config.optimizer,
        weight_decay=config.weight_decay,
        label_smoothing=config.label_smoothing,
        seed=config.seed,
        lanes=lanes,
        timed=not config.deterministic,
    )

    def batches(position: int, micro_batch_size: int) -> Iterator[Any]:
        return iter(
            pipeline.training(
                training,
                augment=config.augment,
                seed=config.seed,
                position=position,
                micro_batch_size=micro_batch_size,
                replicas=replicas,
                local_replicas=range(replicas),
                bad=bad,
            )
        )

    largest = (schedule.micro_batch_size or config.micro_batch_size) or (
        unmeasured(config.ghost_batch_size)
        if config.deterministic
        else micro_batch.choose(
            path / "micro_batch.json",
            step,
            batches,
            limits=schedule.limits,
            ghost_batch_size=config.ghost_batch_size,
            model=config.model,
            report=print,
        )
    )
    table = _table(schedule, replicas, config.ghost_batch_size, largest)
    print(plan.uncertain(config) + table, flush=True)

    variables = {"weights": values(model), "slots": [slot for s in step.slots for slot in s]}
    checkpoints = Checkpoints(
        path / "checkpoints", variables, keep=config.keep_checkpoints, report=Progress.line
    )
    state = restore(checkpoints)
    if state.resumes:
        print(f"resumed at update {state.update}, epoch {state.position / examples:.2f}")
    directory.keep_flags(path, to_flagfile(config))
    training_data.keep(path, data)
    summaries = Summaries(path, update=state.update, report=Progress.line)
    progress = Progress(state.position, schedule.end)
    try:
        last = loop.train(
            loop.Course(
                trajectory=schedule,
                replicas=replicas,
                ghost_batch_size=config.ghost_batch_size,
                micro_batch_size=largest,
                log_every_updates=config.log_every_updates,
                eval_every_epochs=config.eval_every_epochs,
                checkpoint_seconds=60 * config.checkpoint_minutes,
                noise_horizon=trajectory.noise_horizon(config, examples),
                stop_at=None
                if config.stop_at_epoch is None
                else trajectory.position_of(config.stop_at_epoch, examples),
            ),
            state,
            step,
            batches,
            evaluator(strategy, model, evaluation, lanes, config.augment, bad),
            checkpoints,
            summaries,
            progress,
            stopped,
        )
    finally:
        checkpoints.wait()
        progress.close()
        summaries.close()
    if last is None:
        return None
    return {
        "top1": last.top1,
        "top5": last.top5,
        "loss": last.loss,
        "best": state.best,
        "updates": state.update,
        "position": state.position,
        "epochs": state.position / examples,
        "seconds": state.seconds,
        "examples_per_second": state.position / state.seconds,
        "input_wait": None if config.deterministic else state.input_wait / state.seconds,
        "micro_batch_size": largest,
        "traces": step.traces,
        "resumes": state.resumes,
        "bad_examples": bad.count,
        "parameters_sha256": digest(values(model)),
        "versions": versions(),
    }


def _table(
    schedule: trajectory.Trajectory, replicas: int, ghost_batch_size: int, micro_batch_size: int
) -> str:
    """The plan, and where it leaves the gradient noise unmeasured."""
    phases = list(
        plan.phases(
            schedule,
            replicas=replicas,
            ghost_batch_size=ghost_batch_size,
            micro_batch_size=micro_batch_size,
        )
    )
    whole = {phase.batch_size for phase in phases if phase.micro_batch_size == phase.batch_size}
    lines = [
        f"the gradient noise scale is not measured at batch {size}, which is one micro-batch"
        + ("" if size == ghost_batch_size else ": a smaller --micro_batch_size measures it")
        for size in sorted(whole)
    ]
    return "\n".join([plan.table(phases), *lines])
