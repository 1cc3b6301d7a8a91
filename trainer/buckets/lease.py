"""The lease of a run in a bucket: one process owns the run, and renews its claim.

The object lease.json names the owner, and the generation of the run's files that it may write. Each
owner has a generation of its own. A lease is taken, renewed and released by conditional writes, so
that only one process succeeds. If a lease has not been renewed for its duration, its owner counts
as lost, and another process may take the lease. A clock of the observer measures this time, because
clocks of two machines may differ.
"""

import dataclasses
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable

from trainer.buckets.objects import (
    ConflictError,
    MissingError,
    Objects,
    ReadableObjects,
    UnavailableError,
)
from trainer.errors import TryAgainError, UserError
from trainer.system import typed_json
from trainer.system.output import log
from trainer.system.typed_json import boolean, fields, integer, number, text

NAME = "lease.json"
_TAKEN = "has taken it over"
_CONTENT = fields(
    {
        "run": text,
        "owner": text,
        "process": text,
        "generation": integer(1),
        "seconds": number(0.1, 1e6),
        "renewals": integer(),
        "held": boolean,
    }
)


@dataclasses.dataclass(frozen=True)
class Claim:
    """Content of lease.json.

    Attributes:
      run: random name of the run, which all of its owners keep.
      owner: random name of the owner.
      process: process id and host of the owner, for messages.
      generation: number of the owner's generation of files.
      seconds: duration of the lease.
      renewals: number of renewals by this owner.
      held: whether the owner still runs.
    """

    run: str
    owner: str
    process: str
    generation: int
    seconds: float
    renewals: int = 0
    held: bool = True

    def encoded(self) -> bytes:
        """Returns the claim as JSON."""
        return f"{json.dumps(dataclasses.asdict(self))}\n".encode()


class Lease:
    """Lease that this process holds; a thread renews it three times in its duration."""

    def __init__(self, objects: Objects, claim: Claim, version: str) -> None:
        self._objects, self._version = objects, version
        self.claim = claim
        self._stopped = threading.Event()
        self._lost = ""
        self._thread = threading.Thread(target=self._renew_often, daemon=True)
        self._thread.start()

    def lost(self) -> str:
        """Returns how this process lost the lease, for a message; "" if it still has the lease."""
        return self._lost

    def _renew_often(self) -> None:
        while not self._stopped.wait(self.claim.seconds / 3) and not self._lost:
            self._write(dataclasses.replace(self.claim, renewals=self.claim.renewals + 1))

    def _write(self, claim: Claim) -> None:
        """Replaces the claim; records the loss if another process has taken the lease."""
        for _ in range(2):
            try:
                self._version = self._objects.replace(NAME, claim.encoded(), self._version)
                self.claim = claim
                return
            except ConflictError:
                self._look()
            except UnavailableError:
                return  # The next renewal may succeed; the upload of files reports the error.
            if self._lost or self.claim == claim:
                return

    def _look(self) -> None:
        try:
            found = read(self._objects)
        except UnavailableError:
            return
        except UserError as error:
            self._lost = str(error).partition("\n")[0].removesuffix(".")
            return
        if found is None:
            self._lost = f"{NAME} was deleted"
        elif found[0].owner != self.claim.owner:
            self._lost = (
                f"{found[0].process} {_TAKEN}, because this process did not renew its lease in time"
            )
        else:  # An earlier request of this process succeeded, but its answer was lost.
            self.claim, self._version = found

    def release(self) -> None:
        """Ends the renewals, and tells that the run has no owner any longer."""
        self._stopped.set()
        self._thread.join()
        if not self._lost:
            self._write(dataclasses.replace(self.claim, held=False))


def read(objects: ReadableObjects) -> tuple[Claim, str] | None:
    """Returns the claim in lease.json and the object's version; None if the object is missing.

    Raises:
      UserError: if the object is damaged.
    """
    try:
        content, version = objects.read(NAME)
    except MissingError:
        return None
    try:
        values = typed_json.parsed(content, _CONTENT)
    except typed_json.WrongError as error:
        raise UserError(
            f"{NAME} in the run's bucket is damaged: {error}.\n"
            f"If no process trains this run, delete {NAME} in the bucket."
        ) from error
    known = {field.name for field in dataclasses.fields(Claim)}
    return Claim(**{name: value for name, value in values.items() if name in known}), version


def take(
    objects: Objects,
    place: str,
    seconds: float,
    ended: Callable[[Claim], bool],
    unused: Callable[[], int],
) -> Lease:
    """Takes the lease of a run; waits for its end if the owner may have been killed.

    Args:
      objects: the run's objects.
      place: URL of the run, for messages.
      seconds: duration of the lease.
      ended: returns whether the owner of a claim has surely ended.
      unused: returns the generation of a first owner; called if the bucket has no lease.

    Raises:
      TryAgainError: if another process holds the lease.
      UserError: if the lease is damaged.
      UnavailableError: if the bucket does not answer.
    """
    process = f"process {os.getpid()} on {socket.gethostname()}"
    own = Claim(secrets.token_hex(8), secrets.token_hex(8), process, 1, seconds)
    for _ in range(3):  # Another process may win twice, if it starts and ends at the same time.
        found = read(objects)
        try:
            if found is None:
                own = dataclasses.replace(own, generation=unused())
                return Lease(objects, own, objects.create(NAME, own.encoded()))
            last, version = found
            if last.owner == own.owner:  # A request succeeded, but its answer was lost.
                return Lease(objects, last, version)
            if last.held and not ended(last):
                _wait_for_end(objects, place, last, version)
            own = dataclasses.replace(own, run=last.run, generation=last.generation + 1)
            return Lease(objects, own, objects.replace(NAME, own.encoded(), version))
        except ConflictError:
            time.sleep(0.1)
    found = read(objects)
    raise _in_use(place, found[0].process if found else "another process")


def _wait_for_end(objects: Objects, place: str, last: Claim, version: str) -> None:
    """Waits until the lease has not changed for its duration.

    Raises:
      ConflictError: if its owner releases it meanwhile.
      TryAgainError: if its owner renews it meanwhile.
    """
    log(
        f"{place} was last used by {last.process}, which has not released it: waiting up to "
        f"{last.seconds:g} s for a sign of that process"
    )
    end = time.monotonic() + last.seconds
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(left, max(0.1, last.seconds / 20)))
        found = read(objects)
        if found is None or found[1] != version:
            if found and not found[0].held:
                raise ConflictError  # The caller reads the lease again.
            raise _in_use(place, found[0].process if found else last.process)


def _in_use(place: str, process: str) -> TryAgainError:
    return TryAgainError(
        f"{in_use(place)} {process}: wait for it, stop it, or name another folder."
    )


def in_use(place: str) -> str:
    """Returns the beginning of a message that another process has the run at the URL `place`."""
    return f"--model_dir={place} is in use by"


def is_taken(message: str, place: str) -> bool:
    """Returns whether `message` ended a training because another process has the run."""
    return message.startswith(in_use(place)) or (place in message and _TAKEN in message)
