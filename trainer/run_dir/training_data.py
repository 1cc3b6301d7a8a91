"""What a run's model has to know of its training data, kept in the run directory.

So a run goes on, is evaluated and exported with the same model without its training set being read
for it.
"""

import contextlib
import dataclasses
import json
import pathlib

from trainer.run_dir.directory import write_whole

_FILE = "training_data.json"


@dataclasses.dataclass(frozen=True)
class TrainingData:
    """N; the images' (h, w, c); labels are below `classes`; mean and std of each channel's pixels,
    0 to 255."""

    examples: int
    image_shape: tuple[int, int, int]
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


def read(folder: pathlib.Path) -> TrainingData | None:
    """What the run in `folder` keeps; None where that is not there, or damaged."""
    with contextlib.suppress(FileNotFoundError, ValueError, TypeError, KeyError):
        kept = json.loads((folder / _FILE).read_bytes())
        h, w, c = map(int, kept["image_shape"])
        mean, std = (tuple(map(float, kept[name])) for name in ("mean", "std"))
        return TrainingData(int(kept["examples"]), (h, w, c), int(kept["classes"]), mean, std)
    return None


def keep(folder: pathlib.Path, data: TrainingData) -> None:
    """Keeps it for the run in `folder`."""
    write_whole(folder / _FILE, json.dumps(dataclasses.asdict(data)) + "\n")
