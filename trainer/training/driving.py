"""Starts and questions the hosts that this program drives, and reports their errors as its own."""

from collections.abc import Sequence

import tensorflow as tf

from trainer.config.flagfile import to_flagfile
from trainer.config.flags import Config
from trainer.data.bad_examples import BadExamples
from trainer.data.class_names import few
from trainer.data.in_memory import InMemoryDataset
from trainer.data.indexed import IndexedDataset
from trainer.data.python import dataset as python_dataset
from trainer.distributed import hosts
from trainer.distributed.hosts import Host
from trainer.errors import ExitError, LostWorkerError, UserError
from trainer.system.output import log
from trainer.system.tensorflow_errors import Translation, translate
from trainer.training.host import summary

# TensorFlow's errors for a lost host; a lost host cannot be asked for its reason.
_LOSSES = (tf.errors.UnavailableError, tf.errors.AbortedError)


def start(
    config: Config,
    found: Sequence[Host],
    training: InMemoryDataset | IndexedDataset,
    evaluation: InMemoryDataset | IndexedDataset,
) -> None:
    """Lets each host read the examples of the run, and compares them with those of this process.

    Raises:
      UserError: if a host cannot read the examples, has others, or does not run tpu_host.py.
    """
    if not found:
        return
    if config.dataset == python_dataset.DATASET:
        raise UserError(
            f"--dataset={python_dataset.DATASET} is in this process, and {len(found)} hosts read "
            "the examples.\nName a dataset that all hosts can read."
        )
    log(f"{len(found)} hosts read the examples")
    with translate(_not_ours):
        answers = hosts.ask_all(found, {"do": "start", "flags": to_flagfile(config).splitlines()})
    ours_of_all = summary(config, training, evaluation)
    for host, answer in zip(found, answers, strict=True):
        for source, ours, theirs in zip(
            (training, evaluation), ours_of_all, answer["summary"], strict=True
        ):
            if ours == theirs:
                continue
            (what, names), (other, others) = ours, theirs
            if what == other:
                what, other = f"the classes {few(names)}", f"the classes {few(others)}"
            raise UserError(
                f"of {source.name}, {host} has {other},\n"
                f"and the program {what}: give all hosts the same data."
            )


def _not_ours(error: tf.errors.OpError) -> UserError | None:
    if isinstance(error, _LOSSES):
        return None
    return UserError(
        f"a host does not answer as it should: {str(error).splitlines()[0]}\n"
        "Run `bash scripts/tpu/tpu_worker.sh host` anew on each host, with this version of "
        "Crescendo."
    )


def refusal(found: Sequence[Host]) -> Translation:
    """Returns a translation of errors that a host's input pipeline has caused.

    The host's own message replaces TensorFlow's error, which would have a traceback of the host.
    """

    def translation(error: tf.errors.OpError) -> ExitError | None:
        if isinstance(error, _LOSSES):
            return None
        try:
            answers = hosts.ask_all(found, {"do": "report"})
        except tf.errors.OpError as silent:
            return LostWorkerError(
                f"a host is lost: {str(silent).splitlines()[0]}\n"
                "Start all hosts and the program again: the run resumes from its last checkpoint."
            )
        for host, answer in zip(found, answers, strict=True):
            if answer.get("refusal"):
                return hosts.error_of(host, answer, "refusal")
        return None

    return translation


def add_bad_examples(strategy: tf.distribute.Strategy, bad: BadExamples) -> None:
    """Adds the bad examples that the hosts of the slice, if any, left out to `bad`."""
    found = hosts.from_strategy(strategy)
    for answer in hosts.ask_all(found, {"do": "report"}):
        for name, reason in answer["reasons"].items():
            bad.add(name, reason)
