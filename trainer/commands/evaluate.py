"""evaluate: prints the accuracy of a checkpoint or an export, measured as in training.

If --per_class is given, the command also measures each class, and writes evaluation.json and
evaluation.csv.
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from trainer.config.flags import Config
from trainer.data.class_names import few
from trainer.distributed import tpu
from trainer.errors import UserError
from trainer.run_dir import class_evaluation, model_source
from trainer.system import process_limits
from trainer.system.output import aligned, log, say

_MOST_ROWS = 50  # Largest number of classes to print.


@dataclasses.dataclass(frozen=True, eq=False)
class _Evaluated:
    """Results of one evaluation.

    Attributes:
      values: results over all examples.
      classes: results of each class; None if --per_class is not given.
      logits: number of logits of the model.
      name: name of the split.
      path: path or URL of the checkpoint or export.
    """

    values: dict[str, Any]
    classes: dict[str, Any] | None
    logits: int
    name: str
    path: str

    def as_json(self) -> dict[str, Any]:
        """Returns the object that --format=json prints."""
        shown = {k: v for k, v in (self.classes or {}).items() if k != "most_wrong"}
        return self.values | shown


def run(config: Config) -> int:
    """Evaluates a checkpoint or an export on the evaluation split, and prints the result.

    Raises:
      UserError: if the model does not exist or does not fit the data. Also if --per_class is given
        and the folder of the run or export is not writable.
      OutputError: if --per_class is given and its files cannot be written.
    """
    folder = model_source.run_or_export(config)
    found = _evaluated(config, folder)
    if config.format == "json":
        say(json.dumps(found.as_json()))
    else:
        say(_line(found.values, found.logits, found.name, found.path))
        if found.classes:
            say(_table(found.classes))
    _write(folder, found)
    return 0


def as_json(config: Config) -> dict[str, Any]:
    """Returns the object that --format=json prints, and writes the files of --per_class.

    Raises:
      UserError, OutputError: as `run`.
    """
    folder = model_source.run_or_export(config)
    found = _evaluated(config, folder)
    _write(folder, found)
    return found.as_json()


def _evaluated(config: Config, folder: pathlib.Path) -> _Evaluated:
    """Evaluates the run or export in `folder`."""
    if config.per_class and not os.access(folder, os.W_OK):
        raise UserError(
            f"--per_class writes {folder / class_evaluation.FILE}, and {folder} is not writable.\n"
            "Make the folder writable, or leave --per_class out."
        )
    if config.strategy == "tpu":
        tpu.check_packages()
    process_limits.check()
    # Importing TensorFlow takes four seconds, so the checks above come first.
    from trainer.data import image_listing
    from trainer.data.bad_examples import BadExamples
    from trainer.data.sources import evaluation_split
    from trainer.system.tensorflow_errors import translate
    from trainer.training import class_report, setup, trained_model
    from trainer.training.evaluation import Evaluator

    strategy, lanes = setup.devices(config)
    bad = BadExamples(config.skip_bad_examples)
    trained = trained_model.load(config, folder, strategy, bad)
    before = bad.count  # `load` may have found bad examples in the training data.
    with translate(bad.refusal):
        split = evaluation_split(config)
        if note := image_listing.note(config.dataset, split):
            log(note)
        source = setup.load(config, split, bad, trained.class_names)
        shape, logits = trained.image_shape, trained.classes
        _check_fits(source.image_shape, source.classes, shape, logits, source.name)
        log(model_source.as_asked(config, trained.choice))
        evaluator = Evaluator(
            strategy, trained.model, source, lanes, config.augment, bad, loss=trained.loss
        )
        evaluation = evaluator.evaluate()
    assert evaluation is not None  # `evaluate` returns None only if it is told to stop.
    kind = "export" if config.export_dir else "checkpoint"
    examples = source.examples - (bad.count - before)
    path = model_source.as_asked(config, str(trained.path))
    values = {**dataclasses.asdict(evaluation), "examples": examples, kind: path}
    values |= {"evaluated_with": trained.evaluated_with} if trained.evaluated_with else {}
    classes = None
    if config.per_class:
        classes = {"dataset": config.dataset, "split": split, "update": trained.update}
        classes |= class_report.build(evaluator, trained.class_names, logits, config.augment)
    return _Evaluated(values, classes, logits, source.name, path)


def _write(folder: pathlib.Path, found: _Evaluated) -> None:
    """Writes the results of each class, if --per_class is given."""
    if found.classes:
        class_evaluation.write(folder, found.values | found.classes)
        log(f"see {folder / class_evaluation.FILE} and {class_evaluation.CSV}")


def _line(values: Mapping[str, Any], logits: int, name: str, path: str) -> str:
    """Returns a line of results over all examples, with the names of the split and the model."""
    many = logits > class_evaluation.FEW_CLASSES
    top5 = f"  top5 {values['top5']:.4f}" if many else ""
    return (
        f"top1 {values['top1']:.4f}{top5}  loss {values['loss']:.4f}  "
        f"{values['examples']:,} examples of {name}  {path}"
    )


def _table(values: Mapping[str, Any]) -> str:
    """Returns a table of classes, lowest f1 first, and lines about all classes together."""
    classes = values["classes"]
    tested = sorted((row for row in classes if row["support"]), key=lambda row: row["f1"])

    def share(value: float | None) -> str:
        return "–" if value is None else f"{value:.4f}"

    rows = [["class", "support", "precision", "recall", "f1", "most often mistaken for"]]
    for row in tested[:_MOST_ROWS]:
        other = row["mistaken_for"]
        mistakes = "–" if other is None else f"{classes[other]['name']} ({row['mistakes']:,})"
        shares = (share(row[name]) for name in ("precision", "recall", "f1"))
        rows.append([row["name"], f"{row['support']:,}", *shares, mistakes])
    lines = aligned(rows)
    if len(tested) > _MOST_ROWS:
        more = len(tested) - _MOST_ROWS
        lines.append(f"{more:,} of {len(tested):,} classes are not shown; their f1 is not lower")
    if values["without_support"]:
        lines.append(f"classes without examples: {few(values['without_support'])}")
    calibration = values["calibration"]
    lines.append(
        f"balanced accuracy {values['balanced_accuracy']:.4f}  "
        f"expected calibration error {calibration['ece']:.4f} in {calibration['bins']} bins"
    )
    return "\n".join(lines)


def _check_fits(
    images: tuple[int, ...], labels: int, shape: tuple[int, ...], classes: int, name: str
) -> None:
    """Refuses data if its image shape differs from the model's, or the model has fewer classes."""
    if images != shape:
        remedy = "name the model's training data with --dataset"
        if images[2] == shape[2] and shape[0] == shape[1]:  # Resizing makes the images fit.
            remedy += f", or give --eval_image_size={shape[0]}"
        raise UserError(
            f"{name} has images of shape {images}, and the model takes {shape}: {remedy}."
        )
    if labels > classes:
        raise UserError(
            f"{name} has {labels} classes, and the model has {classes}: name the model's training "
            "data with --dataset."
        )
