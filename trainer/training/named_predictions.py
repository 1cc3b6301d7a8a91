"""Predicts the class names of pictures by the model of a run or an export.

A picture that cannot be used is reported, and has no prediction.
"""

import contextlib
import dataclasses
import math
import pathlib
from collections.abc import Callable, Iterator, Sequence

from trainer.config.flags import Config
from trainer.data.bad_examples import BadExamples
from trainer.data.class_names import logit_names
from trainer.data.indexed import IndexedDataset
from trainer.errors import UserError
from trainer.run_dir import model_source
from trainer.system import output
from trainer.system.output import log
from trainer.training import setup, trained_model
from trainer.training.prediction import predict
from trainer.training.progress import Progress

# Number of classes of a prediction if --top_k is not set.
_TOP_K = 3
_MOST_NAMED = 10  # Largest number of pictures to name if the model's outputs are not finite.


@dataclasses.dataclass(frozen=True)
class Prediction:
    """Most probable classes of the picture number `index`, most probable first."""

    index: int
    names: list[str]
    probabilities: list[float]


@dataclasses.dataclass(frozen=True, eq=False)
class NamedPredictions:
    """Predictions of one model for a series of pictures.

    Attributes:
      names: names of the model's logits.
      top_k: number of classes of a prediction.
      batches: predictions for consecutive pictures, which are computed when they are needed. After
        the last batch, a UserError is raised if no picture has a prediction.
    """

    names: Sequence[str]
    top_k: int
    batches: Iterator[list[Prediction]]


def of_run(
    config: Config,
    folder: pathlib.Path,
    shown: Sequence[str],
    load: Callable[[tuple[int, int, int]], IndexedDataset],
) -> NamedPredictions:
    """Loads the model of the run or export in `folder`, and returns its predictions.

    Args:
      config: flags of the command and of the run.
      folder: folder of the run or export.
      shown: names of the pictures, for messages.
      load: maps the image shape of the model to the pictures.

    Raises:
      UserError: if the model cannot be read, or has fewer classes than --top_k.
    """
    strategy, lanes = setup.devices(config)
    trained = trained_model.load(config, folder, strategy, BadExamples(config.skip_bad_examples))
    names = logit_names(trained.class_names, trained.classes)
    top_k = _top_k(config.top_k, len(names))
    log(model_source.as_asked(config, trained.choice))
    source = load(trained.image_shape)

    def batches() -> Iterator[list[Prediction]]:
        bad = BadExamples(skip=True, most_reported=len(shown))
        count = not_finite = 0
        # On a terminal, the printed lines show the progress, so the progress bar is not shown.
        with contextlib.closing(Progress(0, len(shown), shown=output.width() is None)) as bar:
            for found in predict(
                *(strategy, trained.model, source, top_k),
                lanes=lanes,
                augment=config.augment,
                bad=bad,
                loss=trained.loss,
            ):
                batch = []
                for index, classes, probabilities in zip(*found.lists(), strict=True):
                    if all(map(math.isfinite, probabilities)):
                        best = [names[i] for i in classes]
                        batch.append(Prediction(index, best, probabilities))
                    else:
                        not_finite += 1
                        if not_finite <= _MOST_NAMED:
                            bad.add(shown[index], "its probabilities are not finite")
                yield batch
                count += len(batch)
                bar.update(found.end)
        _report_bad(len(shown) - count, len(shown), not_finite)

    return NamedPredictions(names, top_k, batches())


def _top_k(asked: int | None, classes: int) -> int:
    """Returns the number of classes of a prediction: --top_k, or its default."""
    if asked is not None and asked > classes:
        raise UserError(
            f"--top_k={asked} is above the model's {classes} classes: give at most {classes}."
        )
    return asked or min(_TOP_K, classes)


def _report_bad(count: int, pictures: int, not_finite: int) -> None:
    """Logs the number of pictures that have no prediction.

    Args:
      count: number of pictures without a prediction.
      pictures: number of all pictures.
      not_finite: number of pictures for which the model's outputs are not finite.

    Raises:
      UserError: if no picture has a prediction.
    """
    if not_finite and count == pictures:
        raise UserError(
            f"the model's outputs are not finite for {not_finite:,} of {pictures:,} pictures.\n"
            "Name an earlier checkpoint with --checkpoint, or another export."
        )
    if not_finite > _MOST_NAMED:
        log(f"the model's outputs are not finite for {not_finite:,} pictures")
    if count == pictures:
        raise UserError(
            f"none of the pictures can be used ({pictures:,} given).\n"
            "Name JPEG, PNG, WebP, BMP or GIF files, or folders of them."
        )
    if count:
        log(f"{count:,} of {pictures:,} pictures cannot be used, and have no prediction")
