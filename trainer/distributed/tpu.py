"""Connects to a TPU, or explains why the TPU cannot be used.

If a TPU is not available, TensorFlow waits for minutes, or raises an error that does not name the
cause. So this module first asks Google's API about the TPU, and tries the TPU's addresses.
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
from trainer.distributed import host_connection
from trainer.errors import LostWorkerError, UserError
from trainer.system import typed_json
from trainer.system.typed_json import WrongError, fields, text

if TYPE_CHECKING:
    import tensorflow as tf

    from trainer.system.tensorflow_errors import Translation

_REQUEST_SECONDS = 30.0  # Timeout of one API request.
_HEALTHY_SECONDS = 600.0  # Timeout for a TPU to become healthy.
_POLL_SECONDS = 15.0
_CONNECT_SECONDS = 15.0  # Timeout to connect to one address of a TPU.
_LIBTPU = "0.0.24"  # Newest version with which tensorflow-tpu 2.20 does not abort.


@dataclasses.dataclass(frozen=True)
class TpuAddress:
    """Name, zone and project of a TPU; the name `local` means the TPU of this machine.

    The name may also be the addresses of a slice's hosts, such as 10.0.0.2:8470,10.0.0.3:8470.
    """

    name: str
    zone: str | None
    project: str | None

    @property
    def local(self) -> bool:
        return self.name == "local"

    @property
    def hosts(self) -> list[str]:
        """Addresses of the hosts of the slice; [] if `name` is a name."""
        return self.name.split(",") if "," in self.name else []

    def __str__(self) -> str:
        if self.hosts:
            return f"the slice of {len(self.hosts)} hosts"
        return "the TPU of this machine" if self.local else f"TPU {self.name}"

    def gcloud(self, verb: str) -> str:
        """Returns the gcloud command that applies `verb`, for example delete, to this TPU."""
        place = f"--zone={self.zone} --project={self.project}"
        return f"`gcloud compute tpus tpu-vm {verb} {self.name} {place}`"


def address(config: Config) -> TpuAddress | None:
    """Returns the TPU that `config` names; None if the run does not use a TPU."""
    if config.strategy != "tpu" or config.tpu is None:
        return None
    return TpuAddress(config.tpu, config.tpu_zone, config.tpu_project)


def hosts_of(config: Config) -> list[str]:
    """Returns the addresses of the hosts of the slice that `config` names; [] if it names none."""
    tpu = address(config)
    return tpu.hosts if tpu else []


def check_packages() -> None:
    """Raises a UserError if libtpu is too new for tensorflow-tpu; call before importing TensorFlow.

    With such a libtpu, TensorFlow would abort the process without a message.
    """
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        tensorflow = importlib.metadata.version("tensorflow-tpu")
        libtpu = importlib.metadata.version("libtpu")
        if tensorflow.startswith("2.20.") and _numbers(libtpu)[:3] > _numbers(_LIBTPU):
            raise UserError(
                f"tensorflow-tpu {tensorflow} aborts with libtpu {libtpu}, which is too new.\n"
                f"Run pip install 'libtpu<={_LIBTPU}'."
            )


def connect(tpu: TpuAddress) -> "tf.distribute.Strategy":
    """Returns the strategy over all cores of `tpu`; call once, before TensorFlow computes.

    Raises:
      UserError: if the TPU cannot be used, or is not healthy within ten minutes.
    """
    import tensorflow as tf

    version, remedy = f"TensorFlow {tf.__version__}", "Run on the TPU VM itself, with --tpu=local."
    if tpu.hosts:
        resolver = host_connection.connect(tpu.hosts)
        remedy = "Start scripts/tpu/tpu_host.py on each host of the slice, with the extra tpu."
    else:
        if not tpu.local:
            _check_answers(tpu)
        with _asking(tpu):
            resolver = tf.distribute.cluster_resolver.TPUClusterResolver(
                tpu.name, tpu.zone, tpu.project
            )
            tf.config.experimental_connect_to_cluster(resolver)
    if tpu.local:
        remedy = (
            "On a TPU VM, run pip install -e '.[tpu]' in an environment without another "
            "TensorFlow; elsewhere, leave --strategy=tpu out."
        )
    try:
        tf.tpu.experimental.initialize_tpu_system(resolver)
        strategy = tf.distribute.TPUStrategy(resolver)
        if tpu.hosts:
            # TensorFlow cannot read a packed variable, one handle for all replicas, from a process
            # that is not one of the hosts.
            strategy._enable_packed_variable_in_eager_mode = False
        return strategy
    except IndexError as error:
        raise UserError(f"{version} finds no cores in {tpu}.\n{remedy}") from error
    except tf.errors.NotFoundError as error:
        built = "OpKernel" not in str(error)
        problem = f"finds no TPU at --tpu={tpu.name}" if built else "is not built for TPUs"
        raise UserError(f"{version} {problem}.\n{remedy}") from error
    except tf.errors.OpError as error:
        if tpu.hosts and isinstance(error, (tf.errors.UnavailableError, tf.errors.AbortedError)):
            raise LostWorkerError(
                f"a host of {tpu} is lost: {str(error).splitlines()[0]}\n"
                "Start all hosts and the program again."
            ) from error
        problem = f"{tpu} cannot be initialized: {str(error).splitlines()[0]}"
        raise UserError(f"{problem}\nEnd all other processes that use the TPU.") from error


def lost(tpu: TpuAddress | None) -> "Translation":
    """Returns a function that turns TensorFlow's error for a lost TPU into a LostWorkerError.

    The message of the LostWorkerError has a remedy, which depends on whether the TPU can recover.
    """
    import tensorflow as tf

    def translation(error: tf.errors.OpError) -> LostWorkerError | None:
        losses = tf.errors.UnavailableError, tf.errors.AbortedError
        if tpu is None or not isinstance(error, losses):
            return None
        remedy = "Start the same command again: it resumes from the last checkpoint."
        try:
            if not (tpu.local or tpu.hosts):
                _check_recoverable(tpu)
        except UserError as gone:
            remedy = str(gone).replace("\n", " ")
        return LostWorkerError(f"{tpu} is lost: {str(error).splitlines()[0]}\n{remedy}")

    return translation


def _check_answers(tpu: TpuAddress) -> None:
    """Waits until the TPU is healthy; raises a UserError if TensorFlow cannot use the TPU."""
    import tensorflow as tf

    _wait_for_healthy(tpu)
    with _asking(tpu) as client:
        version = client.runtime_version() or ""
    installed = re.match(r"(?:tpu-vm-tf-)?(\d+\.\d+)", version)
    if installed and not tf.__version__.startswith(f"{installed[1]}."):
        raise UserError(
            f"{tpu} has TensorFlow {version}, which is incompatible with {tf.__version__} here.\n"
            f"Install TensorFlow {installed[1]} here, or create the TPU with "
            f"--version={tf.__version__}."
        )
    with _asking(tpu) as client:
        endpoints = client.network_endpoints()
    if len(endpoints) > 1:
        raise UserError(
            f"{tpu} has {len(endpoints)} hosts, which this program drives by their addresses.\n"
            "Start the job with scripts/tpu/submit_tpu.sh, or see docs/tpus.md."
        )
    for endpoint in endpoints:
        _probe(tpu, f"{endpoint['ipAddress']}:{endpoint['port']}", version)


def _wait_for_healthy(tpu: TpuAddress) -> None:
    # `wait_for_healthy` of cloud-tpu-client does not notice that a TPU has been deleted.
    end = time.monotonic() + _HEALTHY_SECONDS
    while True:
        _check_recoverable(tpu)
        with _asking(tpu) as client:
            state, health = client.state(), client.health()
        if (state, health) == ("READY", "HEALTHY"):
            return
        status = f"{tpu} has the state {state} and the health {health}"
        if state in ("STOPPED", "STOPPING"):
            raise UserError(f"{tpu} is {state}.\nStart it: {tpu.gcloud('start')}.")
        if time.monotonic() + _POLL_SECONDS > end:
            raise UserError(
                f"{status}; it was not healthy within {_HEALTHY_SECONDS:g} s.\n"
                f"See {tpu.gcloud('describe')}; if this does not change, create the TPU anew."
            )
        logging.warning("%s; waiting until it is READY and HEALTHY", status)
        time.sleep(_POLL_SECONDS)


def _check_recoverable(tpu: TpuAddress) -> None:
    """Raises a UserError if the TPU cannot recover by itself, or the API does not answer."""
    with _asking(tpu) as client:
        if client.recoverable():
            return
        state = client.state()
    if state in ("PREEMPTED", "TERMINATED"):
        remedy = f"Delete it with {tpu.gcloud('delete')}, and create it again."
        raise UserError(f"{tpu} is {state} and cannot recover.\n{remedy}")
    remedy = "Start again later, with a smaller --micro_batch_size."
    raise UserError(f"{tpu} has run out of memory within the last 90 s.\n{remedy}")


def _probe(tpu: TpuAddress, address: str, version: str) -> None:
    """Raises a UserError if the TPU does not answer at `address`; TensorFlow would wait longer."""
    import grpc

    with grpc.insecure_channel(address) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=_CONNECT_SECONDS)
        except grpc.FutureTimeoutError:
            raise UserError(
                f"{tpu} does not answer at {address} within {_CONNECT_SECONDS:g} s; its runtime is "
                f"{version or 'unknown'}.\n"
                "Run on the TPU VM with --tpu=local, or in the TPU's network."
            ) from None


@contextlib.contextmanager
def _asking(tpu: TpuAddress) -> Iterator[Any]:
    """Yields Google's API client for `tpu` (None if local); turns client errors into UserErrors."""
    if tpu.local:
        yield None
        return
    try:
        import googleapiclient.errors
        import httplib2
        import oauth2client.client
        from cloud_tpu_client import Client
    except ImportError as error:
        problem = f"{tpu} cannot be queried: the package cloud-tpu-client is not installed"
        raise UserError(f"{problem}.\nRun pip install cloud-tpu-client==0.10.") from error
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_REQUEST_SECONDS)  # The client has no timeout setting of its own.
    try:
        yield Client(tpu.name, tpu.zone, tpu.project)
    except (
        ValueError,  # The client raises this error in place of the underlying error.
        RuntimeError,  # The client raises this error if the TPU is no longer READY.
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
                f"{tpu} cannot be queried: there are no valid Google credentials here.\n"
                "Run gcloud auth application-default login, or set GOOGLE_APPLICATION_CREDENTIALS."
            ) from error
        reason = " ".join(str(cause).split())
        if isinstance(cause, TimeoutError):
            reason = f"no answer within {_REQUEST_SECONDS:g} s"
        raise UserError(
            f"{tpu} cannot be queried: {reason}.\n"
            "Check the network, and start again; on the TPU VM itself, use --tpu=local."
        ) from error
    finally:
        socket.setdefaulttimeout(before)


def _refused(tpu: TpuAddress, status: int, content: bytes) -> UserError:
    """Returns the UserError for an answer of the API with the error status `status`."""
    try:
        answer = typed_json.parsed(content, fields({"error": fields({"message": text})}))
        reason = " ".join(answer["error"]["message"].split())
    except WrongError:
        reason = "no reason is given"
    if status == 404:
        return UserError(
            f"{tpu} is not in --tpu_zone={tpu.zone} of --tpu_project={tpu.project}: {reason}\n"
            f"See gcloud compute tpus tpu-vm list --zone={tpu.zone} --project={tpu.project}."
        )
    if status in (401, 403):
        return UserError(
            f"{tpu} cannot be queried with these credentials: {reason}\n"
            f"Ask for the role roles/tpu.viewer in {tpu.project}, or correct --tpu_project."
        )
    return UserError(
        f"{tpu} cannot be queried: Google's API answers {status}: {reason}\nTry again later."
    )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))
