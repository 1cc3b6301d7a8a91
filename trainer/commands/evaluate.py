"""evaluate: prints the accuracy of a run's checkpoint or export, measured as in training."""

import dataclasses
import json
import pathlib

from trainer.config.flags import Config
from trainer.distributed import tpu
from trainer.errors import UserError
from trainer.run_dir import model_source
from trainer.system import process_limits
from trainer.system.output import log, say


def run(config: Config) -> int:
    """Evaluates a checkpoint or an export on the evaluation split, and prints the result.

    Raises:
      UserError: if there is no such model, or the model does not fit the data.
    """
    folder = model_source.run_or_export(config)
    if config.strategy == "tpu":
        tpu.check_packages()
    process_limits.check()
    # Importing TensorFlow takes four seconds, so the checks above come first.
    from trainer.data import image_listing
    from trainer.data.bad_examples import BadExamples
    from trainer.data.sources import evaluation_split
    from trainer.run_dir import exports
    from trainer.system.tensorflow_errors import translate
    from trainer.training import setup
    from trainer.training.evaluation import Evaluator

    strategy, lanes = setup.devices(config)
    bad = BadExamples(config.skip_bad_examples)
    if config.export_dir:
        path = pathlib.Path(config.export_dir)
        about = exports.about(folder)
        shape, classes, names = about.image_shape, about.classes, about.class_names
        # An export does not record how many of its logits --num_classes added.
        learned = None if config.num_classes else classes
        with strategy.scope():
            model = exports.load(path)
    else:
        model, data, path, _ = setup.restore(config, folder, strategy, bad)
        shape, classes, names = model.input_shape[1:], model.output_shape[-1], data.class_names
        learned = data.classes

    before = bad.count  # Number of bad examples in the training data, which `restore` may read.
    with translate(bad.refusal):
        known = setup.class_names(config, names, learned)
        split = evaluation_split(config)
        if note := image_listing.note(config.dataset, split):
            log(note)
        source = setup.load(config, split, bad, known)
        _check_fits(source.image_shape, source.classes, shape, classes, source.name)
        evaluation = Evaluator(strategy, model, source, lanes, config.augment, bad).evaluate()
    assert evaluation is not None  # It returns None only if it is told to stop.
    examples = source.examples - (bad.count - before)
    if config.format == "json":
        kind = "export" if config.export_dir else "checkpoint"
        values = {**dataclasses.asdict(evaluation), "examples": examples, kind: str(path)}
        say(json.dumps(values))
    else:
        say(
            f"top1 {evaluation.top1:.4f}  top5 {evaluation.top5:.4f}  "
            f"loss {evaluation.loss:.4f}  {examples:,} examples of {source.name}  {path}"
        )
    return 0


def _check_fits(
    images: tuple[int, ...], labels: int, shape: tuple[int, ...], classes: int, name: str
) -> None:
    """Refuses data with another image shape or more classes than the model."""
    if images != shape:
        raise UserError(
            f"{name} has images of shape {images}, and the model takes {shape}: name the model's "
            f"training data with --dataset, or give --image_size={shape[0]}."
        )
    if labels > classes:
        raise UserError(
            f"{name} has {labels} classes, and the model has {classes}: name the model's training "
            "data with --dataset."
        )
