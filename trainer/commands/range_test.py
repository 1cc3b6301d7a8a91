"""range_test: loss and accuracy against a rising learning rate, and the interval to train in."""

import dataclasses
import pathlib

from trainer.commands import train
from trainer.config import Config, UserError
from trainer.data import sizes
from trainer.reports import range_test
from trainer.run_dir.directory import write_whole

_POINTS = 100


def run(config: Config) -> int:
    """Trains while the rate rises, to the end or to divergence, and reports; the exit status.

    Raises:
      UserError: as `train`, and where the run is too short to tell.
    """
    # A recipe's own schedule gives way; its model, data, batch and optimizer are what is tested.
    config = dataclasses.replace(
        config,
        anneal="range_test",
        anneal_epochs=[],
        anneal_with="learning_rate",
        warmup_epochs=0.0,
        log_every_updates=_log_every(config),
    )
    status = train.run(config)
    if status not in (0, train.NON_FINITE) or config.model_dir is None:
        return status
    from trainer.run_dir.summaries import read, write_image

    folder = pathlib.Path(config.model_dir)
    points = [p for p in read(folder / "metrics.jsonl") if p["split"] == "train"]
    if len(points) < range_test.FEWEST:
        raise UserError(
            f"{len(points)} points are too few to tell an interval from: lengthen --epochs, or "
            "lower --log_every_updates."
        )
    found = range_test.suggest(points)
    write_whole(folder / "range_test.csv", range_test.csv(points))
    picture = range_test.draw(points, found, config.range_scale)
    (folder / "range_test.png").write_bytes(picture)
    write_image(folder / "tensorboard" / "range_test", "range_test", picture)
    print(f"--min_learning_rate={found.lowest:.3g} --initial_learning_rate={found.highest:.3g}")
    print(f"{found.why}\nsee {folder}/range_test.png and .csv")
    return 0


def _log_every(config: Config) -> int:
    """Updates between points, for about a hundred of them."""
    examples = config.train_examples or sizes.count_examples(
        config.dataset, config.train_split, config.data_dir
    )
    if examples is None:
        return config.log_every_updates
    batch_size = config.initial_batch_size or config.base_batch_size
    return max(1, int(examples * config.epochs / batch_size / _POINTS))
