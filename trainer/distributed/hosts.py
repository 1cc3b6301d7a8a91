"""Calls Python functions on the hosts of a TPU slice, which one program drives.

TensorFlow lets one program compute on the TPUs of all hosts. But it runs a Python function only in
the process that owns the operation's device, and our input pipeline needs Python. So each host has
a process of ours with TensorFlow's server and two Python functions (trainer/training/host.py). The
program calls them by an operation on the CPU of that host, and only numbers and short texts cross
the network.
"""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from trainer.distributed.host_monitor import TOKEN
from trainer.errors import ExitError, ExitStatus, TryAgainError, UserError
from trainer.system import typed_json
from trainer.system.typed_json import anything, table_of

# TensorFlow's names for the first and the second Python function of a process.
_ASK, _MAKE = "pyfunc_0", "pyfunc_1"
_JOB = "worker"
# Keys of an answer: the message of an error that ends the program, and the error's status.
REFUSED, STATUS = "refused", "status"
# An answer is a JSON object, and its content depends on the request.
_ANSWER = table_of(anything)

# Maps a request's text to the answer's text.
Ask = Callable[[bytes], bytes]
# Maps a request's text and the number of an element, from 0, to the arrays of the element.
Make = Callable[[bytes, np.int64], Sequence[np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Host:
    """A host of the slice.

    Attributes:
      index: place of the host in --tpu, from 0.
      device: TensorFlow's name of the host's CPU.
      replicas: indices of the replicas that compute on the host.
    """

    index: int
    device: str
    replicas: range

    def __str__(self) -> str:
        return f"host {self.index}"

    def make(
        self, request: str, number: tf.Tensor, types: Sequence[tf.DType]
    ) -> Sequence[tf.Tensor]:
        """Returns the arrays of element `number`, which the host makes; call in a dataset's map."""
        made: Sequence[tf.Tensor] = tf.raw_ops.PyFunc(
            input=[tf.constant(request), number], token=_MAKE, Tout=types
        )
        return made


def from_strategy(strategy: tf.distribute.Strategy) -> list[Host]:
    """Returns the hosts that this program drives; [] if all replicas are on one host."""
    names = strategy.extended.worker_devices
    devices = [tf.DeviceSpec.from_string(name) for name in names]
    tasks = [device.task for device in devices if device.job == _JOB]
    count = len({*tasks})
    if count < 2 or len(tasks) < len(devices):
        return []
    each = len(tasks) // count
    assert tasks == [index for index in range(count) for _ in range(each)], names
    return [
        Host(i, f"/job:{_JOB}/replica:0/task:{i}/device:CPU:0", range(i * each, (i + 1) * each))
        for i in range(count)
    ]


def on_first(strategy: tf.distribute.Strategy) -> contextlib.AbstractContextManager[Any]:
    """Returns a scope in which the first host runs functions of several hosts.

    The program's own process has no TPU, so it cannot compile such functions. If the strategy has
    one host, the scope changes nothing.
    """
    found = from_strategy(strategy)
    return tf.device(found[0].device) if found else contextlib.nullcontext()


def ask_all(found: Sequence[Host], request: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Sends a request to all hosts at once, and returns their answers.

    Raises:
      UserError: if a host refuses the request; the message names the host.
      TryAgainError: if the host may not refuse the same request later.
    """
    text, sent = json.dumps({**request, "token": TOKEN}), []
    for host in found:
        with tf.device(host.device):
            sent += tf.raw_ops.PyFunc(input=[tf.constant(text)], token=_ASK, Tout=[tf.string])
    answers = [typed_json.parsed(each.numpy(), _ANSWER) for each in sent]
    for host, answer in zip(found, answers, strict=True):
        if REFUSED in answer:
            raise error_of(host, answer, REFUSED)
    return answers


def error_of(host: Host, answer: Mapping[str, Any], key: str) -> ExitError:
    """Returns the error of a host whose message is answer[key]."""
    kind = TryAgainError if answer.get(STATUS) == ExitStatus.STOPPED else UserError
    return kind(f"{host}: {answer[key]}")


def serve(ask: Ask, make: Make) -> tf.Graph:
    """Lets the driving program call the functions in this process, as long as the graph exists.

    Call this function before any other code of the process registers a Python function.
    """
    graph = tf.Graph()
    with graph.as_default():
        tf.numpy_function(ask, [b""], tf.string)
        tf.numpy_function(make, [b"", np.int64(0)], [tf.uint8])
    functions = [each for each in graph.get_operations() if each.type == "PyFunc"]
    names = [each.get_attr("token").decode() for each in functions]
    if names != [_ASK, _MAKE]:
        raise RuntimeError(f"TensorFlow gave the functions the names {names}")
    return graph
