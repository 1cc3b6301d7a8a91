"""predict: prints the most probable classes of pictures, according to a checkpoint or an export."""

import contextlib
import csv
import io
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence

from trainer.config.flags import Config
from trainer.data import picture_paths
from trainer.data.class_names import printable
from trainer.distributed import tpu
from trainer.errors import UserError
from trainer.run_dir import model_source
from trainer.system import output, process_limits
from trainer.system.output import log, say

# Number of classes to print if --top_k is not set.
_TOP_K = 3
# Largest width of a column, in characters. A longer text shifts the rest of its own line only.
_WIDEST = 60
_MOST_NAMED = 10  # Largest number of pictures to name if the model's outputs are not finite.

# Maps the path, the class names and the probabilities of a picture to a line of output.
Line = Callable[[str, Sequence[str], Sequence[float]], str]


def run(config: Config) -> int:
    """Predicts the classes of each picture, and prints a line for each picture.

    The names of pictures that cannot be decoded are printed on stderr.

    Raises:
      UserError: if the model or a picture does not exist, or no picture has a prediction.
    """
    folder = model_source.run_or_export(config)
    if not config.images:
        raise UserError(
            "no pictures given: name files or folders, as in "
            "`predict --model_dir=runs/x photographs`."
        )
    paths, left_out = picture_paths.find(config.images)
    if config.strategy == "tpu":
        tpu.check_packages()
    process_limits.check()
    # Importing TensorFlow takes four seconds, so the checks above come first.
    from trainer.data import picture_source
    from trainer.data.bad_examples import BadExamples
    from trainer.data.class_names import logit_names
    from trainer.training import setup, trained_model
    from trainer.training.prediction import predict
    from trainer.training.progress import Progress

    if left_out:
        log(left_out)
    strategy, lanes = setup.devices(config)
    trained = trained_model.load(config, folder, strategy, BadExamples(config.skip_bad_examples))
    names = logit_names(trained.class_names, trained.classes)
    top_k = _top_k(config.top_k, len(names))
    log(trained.choice)
    source = picture_source.load(paths, trained.image_shape, config.max_image_pixels)
    bad = BadExamples(skip=True, most_reported=len(paths))
    shown = [os.fsdecode(path) for path in paths]
    header, line = _FORMATS[config.format](shown, names, top_k)
    if header:
        say(header)
    count = not_finite = 0
    # On a terminal, the printed lines show the progress, so the progress bar is not shown.
    with contextlib.closing(Progress(0, len(paths), shown=output.width() is None)) as bar:
        for found in predict(
            strategy,
            trained.model,
            source,
            top_k,
            lanes=lanes,
            augment=config.augment,
            bad=bad,
            loss=trained.loss,
        ):
            lines = []
            for index, classes, probabilities in zip(*found.lists(), strict=True):
                if all(map(math.isfinite, probabilities)):
                    lines.append(line(shown[index], [names[i] for i in classes], probabilities))
                else:
                    not_finite += 1
                    if not_finite <= _MOST_NAMED:
                        bad.add(shown[index], "its probabilities are not finite")
            if lines:
                say("\n".join(lines))
            count += len(lines)
            bar.update(found.end)
    _report_bad(len(paths) - count, len(paths), not_finite)
    return 0


def _top_k(asked: int | None, classes: int) -> int:
    """Returns the number of classes to print for a picture: --top_k, or its default."""
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


def _table(paths: Sequence[str], names: Sequence[str], top_k: int) -> tuple[str, Line]:
    """Returns an empty header, and a function that makes a line of a table."""
    del top_k
    path_width = min(_WIDEST, max(len(printable(path)) for path in paths))
    name_width = min(_WIDEST, max(map(len, names)))

    def line(path: str, best: Sequence[str], probabilities: Sequence[float]) -> str:
        cells = [
            f"{name:{name_width}} {probability:.4f}"
            for name, probability in zip(best, probabilities, strict=True)
        ]
        return "  ".join([f"{printable(path):{path_width}}", *cells])

    return "", line


def _json(paths: Sequence[str], names: Sequence[str], top_k: int) -> tuple[str, Line]:
    """Returns an empty header, and a function that makes a JSON object.

    If a byte of a path is not UTF-8, it becomes a surrogate, as in Python: byte 0xe9 is \\udce9.
    """
    del paths, names, top_k

    def line(path: str, best: Sequence[str], probabilities: Sequence[float]) -> str:
        rounded = [_rounded(each) for each in probabilities]
        return json.dumps({"path": path, "names": best, "probabilities": rounded})

    return "", line


def _csv(paths: Sequence[str], names: Sequence[str], top_k: int) -> tuple[str, Line]:
    """Returns the names of the columns, and a function that makes a record.

    A path with a line feed is in quotes. `say` escapes other characters that cannot be printed.
    """
    del paths, names

    def record(values: Sequence[object]) -> str:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(values)
        return text.getvalue().removesuffix("\n")

    def line(path: str, best: Sequence[str], probabilities: Sequence[float]) -> str:
        pairs = zip(best, map(_rounded, probabilities), strict=True)
        return record([path, *(value for pair in pairs for value in pair)])

    numbers = range(1, top_k + 1)
    columns = [f"{kind}_{number}" for number in numbers for kind in ("class", "probability")]
    return record(["path", *columns]), line


def _rounded(probability: float) -> float:
    """Returns the number rounded to 7 digits, because a float32 has no more correct digits."""
    return float(f"{probability:.7g}")


_FORMATS: Mapping[str, Callable[[Sequence[str], Sequence[str], int], tuple[str, Line]]] = {
    "table": _table,
    "json": _json,
    "csv": _csv,
}
