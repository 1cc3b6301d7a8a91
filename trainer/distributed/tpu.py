"""A TPU, from its name to its strategy, and what is said where it cannot be had.

TensorFlow alone waits for minutes, or fails far from the cause. So a TPU that has a name is asked
about first, by Google's API, and its address is tried before TensorFlow connects to it. `local` is
the TPU of the machine that the program runs on, about which nobody is asked.
"""

import contextlib
import dataclasses
import importlib.metadata
import re
import socket
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from absl import logging

from trainer.config.flags import Config
from trainer.errors import LostWorkerError, UserError
from trainer.system import typed_json
from trainer.system.typed_json import WrongError, fields, text

if TYPE_CHECKING:
    import tensorflow as tf

_LOCAL = "local"
_REQUEST_SECONDS = 30.0  # for one answer of the API's
_HEALTHY_SECONDS = 600.0  # that a TPU may take to become healthy
_POLL_SECONDS = 15.0
_CONNECT_SECONDS = 15.0  # for one address of the TPU's
_LIBTPU = (0, 0, 24)  # the newest that tensorflow-tpu 2.20 does not abort with


@dataclasses.dataclass(frozen=True)
class TpuAddress:
    """Which TPU a run is on: `local`, or its name, which zone and project are given with."""

    name: str
    zone: str | None
    project: str | None

    @property
    def local(self) -> bool:
        return self.name == _LOCAL

    def __str__(self) -> str:
        return "the TPU of this machine" if self.local else f"TPU {self.name}"

    def gcloud(self, verb: str) -> str:
        """The command that does it to this TPU."""
        where = f"--zone={self.zone} --project={self.project}"
        return f"`gcloud compute tpus tpu-vm {verb} {self.name} {where}`"


def address(config: Config) -> TpuAddress | None:
    """The TPU that `config` names; None where the run is on something else."""
    if config.strategy != "tpu" or config.tpu is None:
        return None
    return TpuAddress(config.tpu, config.tpu_zone, config.tpu_project)


def check_packages() -> None:
    """Call before TensorFlow is imported, which would end the process here without a word.

    Raises:
      UserError: where this TensorFlow and libtpu do not go together.
    """
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        tensorflow = importlib.metadata.version("tensorflow-tpu")
        libtpu = importlib.metadata.version("libtpu")
        newest = ".".join(map(str, _LIBTPU))
        if tensorflow.startswith("2.20.") and _numbers(libtpu)[:3] > _LIBTPU:
            raise UserError(
                f"tensorflow-tpu {tensorflow} aborts with libtpu {libtpu}: it is too new.\n"
                f"Run pip install 'libtpu<={newest}'."
            )


def connect(tpu: TpuAddress) -> "tf.distribute.Strategy":
    """The strategy over all cores of `tpu`; call once, before TensorFlow computes.

    Raises:
      UserError: where it cannot be had, with the reason, in bounded time.
    """
    import tensorflow as tf

    if not tpu.local:
        _check_answers(tpu)
    with _asking(tpu):
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(
            tpu.name, tpu.zone, tpu.project
        )
        tf.config.experimental_connect_to_cluster(resolver)
    try:
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    except IndexError as error:
        raise UserError(
            f"{tpu} has no cores that TensorFlow {tf.__version__} sees.\n{_remedy(tpu)}"
        ) from error
    except tf.errors.NotFoundError as error:
        lacks = "OpKernel" in str(error)
        raise UserError(
            f"TensorFlow {tf.__version__} here is not built for TPUs.\n{_remedy(tpu)}"
            if lacks
            else f"TensorFlow {tf.__version__} finds no TPU at --tpu={tpu.name}.\n{_remedy(tpu)}"
        ) from error
    except tf.errors.OpError as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{tpu} cannot be initialized: {reason}\n"
            "End other processes that use it, and start again."
        ) from error


def _remedy(tpu: TpuAddress) -> str:
    if tpu.local:
        return (
            "On a TPU VM, run pip install -e '.[tpu]' in an environment without another "
            "TensorFlow; elsewhere, leave --strategy=tpu out."
        )
    return "Run on the TPU VM itself, with --tpu=local."


@contextlib.contextmanager
def watched(tpu: TpuAddress | None) -> Iterator[None]:
    """Where a TPU is lost within, says so, and whether it comes back, in TensorFlow's place.

    Raises:
      LostWorkerError: then.
    """
    import tensorflow as tf

    try:
        yield
    except (tf.errors.UnavailableError, tf.errors.AbortedError) as error:
        if tpu is None:
            raise
        reason = str(error).splitlines()[0]
        remedy = "Start the same command again: it goes on from the last checkpoint."
        try:
            if not tpu.local:
                _check_recoverable(tpu)
        except UserError as lost:
            remedy = str(lost).replace("\n", " ")
        raise LostWorkerError(f"{tpu} is lost: {reason}\n{remedy}") from error


def _check_answers(tpu: TpuAddress) -> None:
    """Returns once the TPU is healthy, of this version and listening.

    Raises:
      UserError: where it is not to be.
    """
    import tensorflow as tf

    _wait_for_healthy(tpu)
    with _asking(tpu) as client:
        version = client.runtime_version() or ""
    theirs = re.match(r"(?:tpu-vm-tf-)?(\d+\.\d+)", version)
    if theirs and _numbers(theirs[1]) != _numbers(tf.__version__)[:2]:
        raise UserError(
            f"{tpu} has TensorFlow {version}, and here is {tf.__version__}: they do not go "
            f"together.\nInstall {theirs[1]} here, or create it with --version={tf.__version__}."
        )
    with _asking(tpu) as client:
        endpoints = client.network_endpoints()
    for endpoint in endpoints:
        _probe(tpu, f"{endpoint['ipAddress']}:{endpoint['port']}", version)


def _wait_for_healthy(tpu: TpuAddress) -> None:
    # cloud-tpu-client's own wait would not notice that a TPU is gone.
    end = time.monotonic() + _HEALTHY_SECONDS
    while True:
        _check_recoverable(tpu)
        with _asking(tpu) as client:
            state, health = client.state(), client.health()
        if (state, health) == ("READY", "HEALTHY"):
            return
        now = f"{tpu} is {state}, its health {health}"
        if state in ("STOPPED", "STOPPING"):
            raise UserError(f"{tpu} is {state}.\nStart it: {tpu.gcloud('start')}.")
        if time.monotonic() + _POLL_SECONDS > end:
            raise UserError(
                f"{now}, and it was not healthy within {_HEALTHY_SECONDS:g} s.\n"
                f"See {tpu.gcloud('describe')}; delete it and create it again if it stays so."
            )
        logging.warning("%s; waiting for it", now)
        time.sleep(_POLL_SECONDS)


def _check_recoverable(tpu: TpuAddress) -> None:
    """Refuses a TPU that will not come back by itself.

    Raises:
      UserError: then, or where nobody says.
    """
    with _asking(tpu) as client:
        if client.recoverable():
            return
        state = client.state()
    if state in ("PREEMPTED", "TERMINATED"):
        raise UserError(
            f"{tpu} is {state} and does not come back.\n"
            f"Delete it and create it again: {tpu.gcloud('delete')}."
        )
    raise UserError(
        f"{tpu} has run out of memory within the last 90 s.\n"
        "Start again later, with a smaller --micro_batch_size."
    )


def _probe(tpu: TpuAddress, address: str, version: str) -> None:
    """Refuses a TPU that does not answer at `address`, where TensorFlow would wait for minutes."""
    import grpc

    with grpc.insecure_channel(address) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=_CONNECT_SECONDS)
        except grpc.FutureTimeoutError:
            raise UserError(
                f"{tpu} does not answer at {address} within {_CONNECT_SECONDS:g} s; its runtime is "
                f"{version or 'unknown'}.\nRun on the TPU VM itself, with --tpu=local, or on a "
                "machine of its network."
            ) from None


@contextlib.contextmanager
def _asking(tpu: TpuAddress) -> Iterator[Any]:
    """Google's client for `tpu`; what it raises is said in plain words.

    Raises:
      UserError: where it raises anything.
    """
    if tpu.local:
        yield None
        return
    try:
        import googleapiclient.errors
        import httplib2
        import oauth2client.client
        from cloud_tpu_client import Client
    except ImportError as error:
        raise UserError(
            f"{tpu} is asked about by the package cloud-tpu-client, which is not there.\n"
            "Run pip install cloud-tpu-client==0.10."
        ) from error

    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_REQUEST_SECONDS)  # The client takes it from here alone.
    try:
        yield Client(tpu.name, tpu.zone, tpu.project)
    except (
        ValueError,  # the client's own, in place of another
        RuntimeError,  # likewise, where the state is no longer READY
        OSError,
        httplib2.HttpLib2Error,
        oauth2client.client.Error,
        googleapiclient.errors.Error,
    ) as error:
        cause = error.__context__ or error if isinstance(error, ValueError) else error
        if isinstance(cause, googleapiclient.errors.HttpError):
            raise _refused(tpu, cause.resp.status, cause.content) from error
        if isinstance(cause, oauth2client.client.Error):
            raise UserError(
                f"{tpu} cannot be asked about: there are no valid Google credentials here.\n"
                "Run gcloud auth application-default login, or name a service account's file as "
                "GOOGLE_APPLICATION_CREDENTIALS."
            ) from error
        late = isinstance(cause, TimeoutError)
        reason = (
            f"no answer within {_REQUEST_SECONDS:g} s" if late else " ".join(str(cause).split())
        )
        raise UserError(
            f"{tpu} cannot be asked about: {reason}.\n"
            "Check the network, and start again; on the TPU VM itself, use --tpu=local."
        ) from error
    finally:
        socket.setdefaulttimeout(before)


def _refused(tpu: TpuAddress, status: int, content: bytes) -> UserError:
    """What to say of an answer that is an error."""
    try:
        answer = typed_json.parsed(content, fields({"error": fields({"message": text})}))
        reason = _line(answer["error"]["message"])
    except WrongError:
        reason = "no reason is given"
    if status == 404:
        return UserError(
            f"{tpu} is not in --tpu_zone={tpu.zone} of --tpu_project={tpu.project}: {reason}\n"
            f"See gcloud compute tpus tpu-vm list --zone={tpu.zone} --project={tpu.project}."
        )
    if status in (401, 403):
        return UserError(
            f"{tpu} may not be seen with these credentials: {reason}\n"
            f"Ask for the role roles/tpu.viewer in {tpu.project}, or correct --tpu_project."
        )
    return UserError(
        f"{tpu} cannot be asked about: Google's API answers {status}: {reason}\nTry again later."
    )


def _line(text: str) -> str:
    return " ".join(text.split())


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))
