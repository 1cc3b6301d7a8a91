"""predict: prints the most probable classes of pictures, according to a checkpoint or an export."""

import csv
import io
import json
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trainer.config.flags import Config
from trainer.data import picture_paths
from trainer.data.class_names import printable
from trainer.distributed import tpu
from trainer.errors import UserError
from trainer.run_dir import model_source
from trainer.system import process_limits
from trainer.system.output import log, say

if TYPE_CHECKING:
    from trainer.training.named_predictions import NamedPredictions

# Largest width of a column, in characters. A longer text shifts the rest of its own line only.
_WIDEST = 60

# Maps the path, the class names and the probabilities of a picture to a line of output.
Line = Callable[[str, Sequence[str], Sequence[float]], str]
# Maps the image shape of a model to the pictures, an IndexedDataset.
Load = Callable[[tuple[int, int, int]], Any]


def run(config: Config) -> int:
    """Predicts the classes of each picture, and prints a line for each picture.

    The names of pictures that cannot be decoded are printed on stderr.

    Raises:
      UserError: if the model or a picture does not exist, or no picture has a prediction.
    """
    folder = model_source.run_or_export(config)
    paths = _paths(config)
    shown = [os.fsdecode(path) for path in paths]
    found = _predictions(config, folder, shown, _pictures(config, paths))
    header, line = _FORMATS[config.format](shown, found.names, found.top_k)
    if header:
        say(header)
    for batch in found.batches:
        lines = [line(shown[each.index], each.names, each.probabilities) for each in batch]
        if lines:
            say("\n".join(lines))
    return 0


def as_json(config: Config, images: Sequence[Any] | None = None) -> list[dict[str, Any]]:
    """Returns the objects that --format=json prints, one a picture.

    Args:
      config: flags of the command and of the run.
      images: images that a Python program holds, as in a source of examples; an object then has
        `index` in place of `path`. None: the pictures of --images.

    Raises:
      UserError: as `run`.
    """
    folder = model_source.run_or_export(config)
    paths = _paths(config) if images is None else []
    shown = [os.fsdecode(path) for path in paths]
    load = _pictures(config, paths)
    if images is not None:
        shown = [f"the image at index {index}" for index in range(len(images))]
        load = _images(config, images)
    found = _predictions(config, folder, shown, load)

    def key(index: int) -> dict[str, Any]:
        return {"path": shown[index]} if images is None else {"index": index}

    return [
        key(each.index) | _values(each.names, each.probabilities)
        for batch in found.batches
        for each in batch
    ]


def _paths(config: Config) -> list[bytes]:
    """Returns the paths of the pictures, and logs how many other files are left out."""
    if not config.images:
        raise UserError(
            "no pictures given: name files or folders, as in "
            "`predict --model_dir=runs/x photographs`."
        )
    paths, left_out = picture_paths.find(config.images)
    if left_out:
        log(left_out)
    return paths


def _pictures(config: Config, paths: Sequence[bytes]) -> Load:
    def load(shape: tuple[int, int, int]) -> Any:
        from trainer.data import picture_source

        return picture_source.load(paths, shape, config.max_image_pixels)

    return load


def _images(config: Config, images: Sequence[Any]) -> Load:
    def load(shape: tuple[int, int, int]) -> Any:
        from trainer.data.python import source

        size: tuple[int, ...] = getattr(images, "shape", ())
        if len(size) == 3 and shape[2] == size[2] == 3:
            raise UserError(
                f"images has the shape {size}, which may be one colour image or "
                f"{len(images)} grey ones: give images[None] for one image, or images[..., None]."
            )
        items = [(image, 0) for image in images]
        return source.load(
            items, ("",), int, None, config.max_image_pixels, "images", model_shape=shape
        )

    return load


def _predictions(
    config: Config, folder: pathlib.Path, shown: Sequence[str], load: Load
) -> "NamedPredictions":
    """Checks this process, and returns the predictions for the pictures with the names `shown`."""
    if config.strategy == "tpu":
        tpu.check_packages()
    process_limits.check()
    # Importing TensorFlow takes four seconds, so the checks above come first.
    from trainer.training import named_predictions

    return named_predictions.of_run(config, folder, shown, load)


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
        return json.dumps({"path": path, **_values(best, probabilities)})

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


def _values(best: Sequence[str], probabilities: Sequence[float]) -> dict[str, Any]:
    """Returns a prediction as values that JSON can hold."""
    return {"names": list(best), "probabilities": [_rounded(each) for each in probabilities]}


def _rounded(probability: float) -> float:
    """Returns the number rounded to 7 digits, because a float32 has no more correct digits."""
    return float(f"{probability:.7g}")


_FORMATS: Mapping[str, Callable[[Sequence[str], Sequence[str], int], tuple[str, Line]]] = {
    "table": _table,
    "json": _json,
    "csv": _csv,
}
