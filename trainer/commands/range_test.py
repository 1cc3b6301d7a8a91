"""range_test: trains while the learning rate rises, and suggests a range of learning rates."""

import dataclasses
import math
import pathlib

from trainer.commands import train
from trainer.config.flags import Config
from trainer.data.tfds import sizes
from trainer.errors import ExitStatus, UserError
from trainer.reports import range_test
from trainer.reports.run_record import DIVERGED
from trainer.run_dir import directory
from trainer.schedule import trajectory
from trainer.schedule.span import spans
from trainer.system.atomic_file import write_atomic
from trainer.system.output import say

_POINTS = 100  # Approximate number of points to log.
_FEWEST_UPDATES = 20


def run(config: Config) -> int:
    """Trains until the run ends or diverges, prints the suggestion, and returns the exit status.

    Raises:
      UserError: if the run cannot be trained, or is known to have fewer than 20 updates.
    """
    # The user's model, data, batch size and optimizer stay; the range test replaces the schedule.
    config = dataclasses.replace(
        config,
        anneal="range_test",
        anneal_epochs=(),
        anneal_with="learning_rate",
        warmup_epochs=0.0,
        momentum_warmup_epochs=0.0,
        momentum_from=None,
        momentum_to=None,
        workers=None,  # A flagfile may hold it for plan and train.
    )
    config = dataclasses.replace(config, log_every_updates=_log_every(config))
    status = train.run(config, lambda path: _report(config, path))
    return ExitStatus.DONE if status == ExitStatus.NOT_FINITE else status


def _report(config: Config, folder: pathlib.Path) -> None:
    """Prints the suggested learning rates; writes the points and a figure into `folder`."""
    from trainer.run_dir import metrics
    from trainer.run_dir.metrics_writer import write_image

    logged = metrics.read(folder / metrics.FILE)
    points = range_test.whole(p for p in logged if p["split"] == "train")
    diverged = (folder / directory.DIVERGED).exists()
    if len(points) < 2:
        if diverged:
            raise UserError("the loss is not finite from the start: lower --range_from.")
        raise UserError(
            "the run has fewer than two logged points.\n"
            "Name another --model_dir, with a lower --log_every_updates."
        )
    found = range_test.suggest(points, DIVERGED if diverged else "finished")
    write_atomic(folder / "range_test.csv", range_test.csv(points))
    picture = range_test.draw(points, found, config.range_scale)
    write_atomic(folder / "range_test.png", picture)
    write_image(folder / "tensorboard" / "range_test", "range_test", picture)
    say(found.why)
    if not found.is_found:
        say(f"see {folder}/range_test.png and .csv")
        return
    batch_size, momentum = points[0]["batch_size"], points[0]["momentum"]
    reference = f"--base_batch_size={batch_size} --base_momentum={momentum:g}"
    say(f"see {folder}/range_test.png and .csv; to train with these rates, use:")
    say(f"--base_learning_rate={found.highest:.3g} {reference}")
    if f"{found.lowest:.3g}" != f"{found.highest:.3g}":
        say("and, for cycles between both rates, also:")
        say(f"--anneal=cyclical --min_learning_rate={found.lowest:.3g}")


def _log_every(config: Config) -> int:
    """Returns the value of --log_every_updates at which the run logs about 100 points."""
    examples = config.train_examples or sizes.count_examples(
        config.dataset, config.train_split, config.data_dir
    )
    if examples is None:  # The size is not known before the run loads the data.
        return config.log_every_updates
    schedule = trajectory.from_config(config, examples, 1)
    updates = sum(span.updates for span in spans(schedule))
    if updates < _FEWEST_UPDATES:
        least = _FEWEST_UPDATES * schedule.at(0).batch_size / examples
        raise UserError(
            f"{updates} updates are too few for a range test: "
            f"raise --epochs to {math.ceil(100 * least) / 100:g} or more."
        )
    return max(1, updates // _POINTS)
