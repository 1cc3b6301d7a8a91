"""export: writes a checkpoint's model for inference; the files load without this program."""

import dataclasses
import functools
import pathlib
from collections.abc import Iterable

from trainer.config.flagfile import to_flagfile
from trainer.config.flags import Config
from trainer.run_dir import model_source
from trainer.schedule.averaging import EMA, evaluated_with
from trainer.system import process_limits
from trainer.system.output import log, say


def run(config: Config) -> int:
    """Exports a checkpoint, and prints the folder and the code that loads the model.

    The new export replaces an earlier export of the same run in this folder.

    Raises:
      UserError: if the checkpoint does not exist, or the folder cannot be written, or the folder
        holds anything other than an export of this run.
    """
    folder = model_source.run(config)
    target = pathlib.Path(config.export_dir or folder / "export")
    process_limits.check()
    # Importing TensorFlow takes four seconds, so the checks above come first.
    from trainer.data.class_names import few, logit_names
    from trainer.data.encoded_batch import decoder
    from trainer.run_dir import checkpoint_choice, exports
    from trainer.training import inference_model, setup

    # The user may choose other parameters (plain or averaged) for the export than for the run.
    # So export.json records --evaluate_with, and the flags of the export leave it out.
    flags = to_flagfile(dataclasses.replace(config, model_dir=None, evaluate_with=None))
    as_asked = functools.partial(model_source.as_asked, config)
    exports.check_free(target, flags)
    found = inference_model.restore(config, folder)
    model, path, update, names = found.model, found.path, found.update, found.class_names
    checkpoints = folder / "checkpoints"
    best = checkpoint_choice.best(checkpoints, path)
    counts = evaluated_with(config) if config.ema_decay is not None else None
    (_, h, w, c), classes = model.input_shape, model.output_shape[-1]
    logits = logit_names(names, classes)
    about = exports.ExportInfo(
        *(as_asked(str(path)), update, (h, w, c), classes, setup.versions(), (*names,)),
        preprocessing=found.data.preprocessing,
        best=best,
        evaluated_with=counts,
        loss=config.loss,
    )
    decode = decoder((h, w, c), config.augment, config.max_image_pixels)
    without = exports.write(target, model, flags, about, logits, decode)

    log(as_asked(checkpoint_choice.describe_run(checkpoints, path, update, best, counts)))
    averaged = "the average of the parameters at " if counts == EMA else ""
    say(
        f"{target} holds {averaged}update {update} of {as_asked(str(folder))}, "
        f"from uint8 images [b, {h}, {w}, {c}] to float32 logits [b, {classes}]:"
    )
    say(f"  classes.txt names the logits, as model.class_names does: {few(logits)}")
    _say_usage(target, without, exports.modules_needed(model))
    return 0


def _say_usage(target: pathlib.Path, without: str | None, modules: Iterable[str]) -> None:
    """Prints the code that loads the export `target`.

    Args:
      target: folder of the export.
      without: reason why the export lacks model.keras; None if it has this file.
      modules: names of the modules that model.keras needs.
    """
    # The printed code keeps a reference to `model`. Without the reference, Python would delete the
    # variables that `serve` uses.
    say(f'  model = tf.saved_model.load("{target}/saved_model"); logits = model.serve(images)')
    say(
        f'  model = tf.saved_model.load("{target}/saved_model"); '
        "found = model.serve_images(tf.constant(files))"
    )
    say("    files: bytes of JPEGs and PNGs; found: their names and probabilities, best first")
    if without:
        say(f"  model.keras is left out, because Keras could not load it: {without}")
        return
    say(f'  model = keras.models.load_model("{target}/model.keras"); logits = model(images)')
    for module in modules:
        say(f"  first import {module}, which defines the layers")
