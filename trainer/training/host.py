"""Answers the program that drives this host: makes the batches of the host's own replicas.

The program sends the flags of the run once. The host reads the same examples from the same flags,
and then makes batches on request. The example at a position depends only on the flags and the
position, so the hosts together make the batches that one process would make.
"""

import dataclasses
import hashlib
import json
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from trainer.config import command_line
from trainer.config.flags import Config
from trainer.data import image_listing, pipeline, sources
from trainer.data.bad_examples import BadExamples
from trainer.data.bucket import open_folders
from trainer.data.in_memory import InMemoryDataset
from trainer.data.indexed import IndexedDataset
from trainer.data.tfds.prepare import find_builder
from trainer.distributed import hosts
from trainer.distributed.process_group import ProcessGroup
from trainer.errors import ExitError, TryAgainError
from trainer.run_dir.training_data import TrainingData
from trainer.system import typed_json
from trainer.system.output import log
from trainer.system.typed_json import fields, integer, list_of, one_of, optional, text
from trainer.training import balance, batches, setup

_QUESTION = fields(
    {"do": one_of("start", "wait", "report"), "token": text}, {"flags": list_of(text)}
)
_REQUEST = fields(
    {
        "make": one_of("training", "evaluation"),
        "number": integer(1),
        "token": text,
        "replicas": list_of(integer(), 2),
        "of": integer(1),
    },
    {
        "position": integer(),
        "micro_batch_size": integer(1),
        "image_size": optional(integer(1)),
        "batch_size": integer(1),
    },
)


_TAKEN = "another program uses this host: wait for it, or end it."


@dataclasses.dataclass(frozen=True)
class Examples:
    """The examples of a run, as this process reads them."""

    config: Config
    bad: BadExamples
    stream: pipeline.ExampleStream
    evaluation: InMemoryDataset | IndexedDataset

    def dataset(self, request: Mapping[str, Any]) -> tf.data.Dataset:
        """Returns the batches that a request describes."""
        local = range(*request["replicas"])
        if request["make"] == "training":
            return pipeline.training(
                self.stream,
                position=request["position"],
                micro_batch_size=request["micro_batch_size"],
                replicas=request["of"],
                local_replicas=local,
                image_size=request["image_size"],
            )
        return pipeline.evaluation(
            self.evaluation,
            batch_size=request["batch_size"],
            shards=request["of"],
            local_shards=local,
            augment=self.config.augment,
            bad=self.bad,
        )


def summary(
    config: Config,
    training: InMemoryDataset | IndexedDataset,
    evaluation: InMemoryDataset | IndexedDataset,
) -> list[list[Any]]:
    """Returns what must be equal on all hosts, as JSON has it: a text and the class names."""
    versions = setup.versions()
    programs = ", ".join(f"{name} {versions[name]}" for name in ("crescendo", "tensorflow"))
    prepared = _prepared(config)
    return [
        [
            f"{each.examples:,} examples of shape {each.image_shape} in {each.classes} classes"
            f"{_files(each)}{prepared}, read by {programs}",
            list(each.class_names),
        ]
        for each in (training, evaluation)
    ]


def _files(source: InMemoryDataset | IndexedDataset) -> str:
    """Returns a text that differs if labels, names of files or their order differ.

    The folders above a file's own folder may differ between hosts. If the files hold several
    examples that are not in memory, the result is "", because reading all labels takes too long.
    """
    if source.path is None and not isinstance(source, InMemoryDataset):
        return ""
    digest = hashlib.blake2b(sources.labels(source).tobytes(), digest_size=8)
    for path in map(source.path, range(source.examples)) if source.path else ():
        digest.update(f"{'/'.join(path.split('/')[-2:])}\n".encode(errors="surrogateescape"))
    return f", with labels and file names of digest {digest.hexdigest()}"


def _prepared(config: Config) -> str:
    """Returns a text about the files of a TFDS set; "" for a list of image files."""
    if image_listing.is_listed(config.dataset):
        return ""
    info = find_builder(config.dataset, config.data_dir).info
    splits = [(name, each.shard_lengths, each.num_bytes) for name, each in info.splits.items()]
    digest = hashlib.blake2b(json.dumps(splits).encode(), digest_size=8)
    return f", {info.full_name} in files of digest {digest.hexdigest()}"


def read(config: Config) -> Examples:
    """Reads the examples of a run.

    Raises:
      UserError: if they cannot be read.
    """
    bad, group = BadExamples(config.skip_bad_examples), ProcessGroup()
    training, evaluation = setup.load_splits(config, None, bad, group)
    # The driving program has compared the classes with those that the run began with.
    data = TrainingData(training.examples, training.image_shape, training.classes, (), ())
    unweighted = dataclasses.replace(config, class_weights=None)  # The program weights the loss.
    balanced = balance.from_config(unweighted, training, data, bad, group)
    return Examples(config, bad, batches.stream(config, training, bad, balanced), evaluation)


class HostService:
    """The two functions of a host that the driving program calls."""

    def __init__(self, admitted: Callable[[str], bool]) -> None:
        """Prepares to answer; the first request is `start`.

        `admitted` returns whether the program with a token may use this host.
        """
        self._admitted = admitted
        self._lock = threading.Lock()
        self._examples: Examples | None = None
        self._token = ""  # Token of the program that started this host.
        # For each kind of batches: the number of the newest request, its iterator, and the number
        # of its next element.
        self._iterators: dict[str, tuple[int, Iterator[Any], int]] = {}

    def ask(self, request: bytes) -> bytes:
        """Returns the answer to a request; the answer to a user's mistake is its message."""
        question = typed_json.parsed(request, _QUESTION)
        answer: dict[str, Any] = {}
        try:
            if not self._admitted(question["token"]):
                raise TryAgainError(_TAKEN)
            if question["do"] == "start":
                answer["summary"] = self._start(question["flags"], question["token"])
            elif question["do"] == "report" and self._examples:
                bad = self._examples.bad
                answer = {"reasons": bad.reasons}
                if bad.refused:
                    answer |= {"refusal": str(bad.refused), hosts.STATUS: bad.refused.status}
        except ExitError as error:
            answer |= {hosts.REFUSED: str(error), hosts.STATUS: error.status}
        except OSError as error:
            reason = f"{error.filename} cannot be read: {error.strerror}."
            answer[hosts.REFUSED] = f"{reason}\nMake it readable on this host."
        except Exception as error:  # The program must get an answer, and the log has the rest.
            log(traceback.format_exc())
            answer[hosts.REFUSED] = f"{type(error).__name__}: {error}\nThe host's log has more."
        return json.dumps(answer).encode()

    def make(self, request: bytes, number: np.int64) -> Sequence[np.ndarray]:
        """Returns the arrays of a batch of a request; `number` counts its batches from 0."""
        asked = typed_json.parsed(request, _REQUEST)
        with self._lock:
            if asked["token"] != self._token or self._examples is None:
                raise RuntimeError(_TAKEN)
            newest, iterator, due = self._iterators.get(asked["make"], (0, iter(()), 0))
            if asked["number"] > newest:
                iterator, due = self._examples.dataset(asked).as_numpy_iterator(), 0
            elif asked["number"] < newest:
                raise StopIteration
            if number != due:
                raise RuntimeError(f"batch {number} of {asked} is asked for, and not {due}")
            self._iterators[asked["make"]] = asked["number"], iterator, due + 1
        return tf.nest.flatten(next(iterator))

    def _start(self, flags: Sequence[str], token: str) -> list[Any]:
        with self._lock:  # Another program that starts meanwhile waits.
            self._iterators, self._token, self._examples = {}, token, None
            open_folders.forget()
            config = command_line.parse("train", flags)
            open_folders.keep_in(config.cache_dir)
            self._examples = read(config)
            log("this host has read the examples, and makes batches")
            return summary(config, self._examples.stream.source, self._examples.evaluation)
