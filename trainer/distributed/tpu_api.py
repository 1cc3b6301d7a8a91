"""Asks Google's API about a TPU, and tries the TPU's addresses.

If a TPU is not available, TensorFlow waits for minutes, or raises an error that does not name the
cause.
"""

import contextlib
import re
import socket
import time
from collections.abc import Iterator
from typing import Any

from absl import logging

from trainer.distributed.tpu_address import TpuAddress
from trainer.errors import UserError
from trainer.system import typed_json
from trainer.system.typed_json import WrongError, fields, text

_REQUEST_SECONDS = 30.0  # Timeout of one API request.
_HEALTHY_SECONDS = 600.0  # Timeout for a TPU to become healthy.
_POLL_SECONDS = 15.0
_CONNECT_SECONDS = 15.0  # Timeout to connect to one address of a TPU.


def check_answers(tpu: TpuAddress) -> None:
    """Waits until the TPU is healthy; raises a UserError if TensorFlow cannot use the TPU."""
    import tensorflow as tf

    _wait_for_healthy(tpu)
    with asking(tpu) as client:
        version = client.runtime_version() or ""
    installed = re.match(r"(?:tpu-vm-tf-)?(\d+\.\d+)", version)
    if installed and not tf.__version__.startswith(f"{installed[1]}."):
        raise UserError(
            f"{tpu} has TensorFlow {version}, which is incompatible with {tf.__version__} here.\n"
            f"Install TensorFlow {installed[1]} here, or create the TPU with "
            f"--version={tf.__version__}."
        )
    with asking(tpu) as client:
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
        check_recoverable(tpu)
        with asking(tpu) as client:
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


def check_recoverable(tpu: TpuAddress) -> None:
    """Raises a UserError if the TPU cannot recover by itself, or the API does not answer."""
    with asking(tpu) as client:
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
def asking(tpu: TpuAddress) -> Iterator[Any]:
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
        RuntimeError,  # The client raises this error if the TPU has left the state READY.
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
                f"{tpu} cannot be queried: this machine has no valid Google credentials.\n"
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
