"""Defines the commands of the program, each with a summary and an example."""

from collections.abc import Mapping
from typing import NamedTuple


class Command(NamedTuple):
    """Help of one command: a summary, and the arguments of an example command line."""

    summary: str
    example: str


COMMANDS: Mapping[str, Command] = {
    "plan": Command(
        "Print what a run would do, update by update, without training.",
        "--flagfile=fashion_mnist_grow --plot=plan.png",
    ),
    "train": Command(
        "Train a model in the run directory --model_dir, or resume the run there.",
        "--flagfile=fashion_mnist_grow --model_dir=runs/grow",
    ),
    "range_test": Command(
        "Train while the learning rate rises, and suggest the rates to train with.",
        "--flagfile=fashion_mnist_decay --epochs=2 --model_dir=runs/range",
    ),
    "sweep": Command(
        "Train once for each point of a grid of flags, and compare the runs.",
        '--sweep="momentum=0.9,0.98;seed=0,1" --epochs=2 --model_dir=runs/sweep',
    ),
    "evaluate": Command(
        "Print the accuracy of a checkpoint or an export.",
        "--model_dir=runs/grow --checkpoint=best",
    ),
    "export": Command(
        "Write the inference model of a checkpoint.", "--model_dir=runs/grow --checkpoint=best"
    ),
    "predict": Command(
        "Print the most probable classes of your own pictures.",
        "--model_dir=runs/grow --checkpoint=best photographs",
    ),
    "convert": Command(
        "Add an index to a prepared TFDS dataset, so that a run need not load all of it.",
        "--dataset=fashion_mnist",
    ),
    "fetch": Command(
        "Write a local copy of a run or a sweep that is in a bucket.",
        "--model_dir=gs://bucket/runs/grow --local_dir=runs/grow",
    ),
    "report": Command("Write one HTML page about several runs.", "runs/* --output=report.html"),
}
