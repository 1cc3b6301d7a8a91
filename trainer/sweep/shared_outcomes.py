"""Reads and changes sweep.json in a bucket, where several machines may work on one sweep.

The object has the content that outcomes.py describes. It is replaced only if it still has the
version that was read, so that no machine overwrites the outcomes of another one.
"""

import contextlib
import random
import time
from collections.abc import Callable, Sequence

from trainer.buckets.objects import (
    PROBE,
    ConflictError,
    MissingError,
    Objects,
    UnavailableError,
)
from trainer.errors import UserError
from trainer.sweep.grid import Point
from trainer.sweep.outcomes import ASIDE, FILE, Content, decoded
from trainer.system.output import log
from trainer.system.typed_json import WrongError

_EARLY = (ASIDE, PROBE)  # Names of objects that a process of a sweep makes before sweep.json.
_MOST_CONFLICTS = 200


class SharedOutcomes:
    """The object sweep.json of the sweep with the URL `place`.

    Args:
      objects: objects of the sweep's folder.
      place: URL of the sweep, for messages.
    """

    def __init__(self, objects: Objects, place: str) -> None:
        self._objects, self._place = objects, place
        self._precision: str | None = None  # The sweep's, in case sweep.json is damaged.

    def exists(self) -> bool:
        """Returns whether the folder is that of a sweep; False if it is empty.

        Raises:
          UserError: if the folder is not the folder of a sweep.
          UnavailableError: if the bucket does not answer.
        """
        for _ in range(2):  # Another machine may begin the sweep between the two requests.
            with contextlib.suppress(MissingError):
                self._objects.read(FILE)
                return True
            names = self._objects.names("")
            if FILE not in names:
                break
        if all(name.startswith(_EARLY) for name in names):
            return False
        raise UserError(
            f"--model_dir={self._place} exists and is not the folder of a sweep: name a new "
            "folder, or that of a sweep."
        )

    def read(self) -> Content:
        """Returns the content; it is empty if the object is missing or damaged.

        Raises:
          UnavailableError: if the bucket does not answer.
        """
        try:
            return decoded(self._objects.read(FILE)[0])
        except (MissingError, WrongError):
            return Content()

    def begin(self, points: Sequence[Point], precision: str | None) -> Content:
        """Adds points, and the precision if none is chosen; returns the new content.

        Raises:
          UserError: if the folder is not the folder of a sweep.
          UnavailableError: if the bucket does not answer.
        """
        self.exists()
        content = self.change(lambda content: content.add(points, precision))
        self._precision = content.precision
        return content

    def change(self, edit: Callable[[Content], None]) -> Content:
        """Changes the content by `edit`; returns the new content.

        `edit` may be called several times, on the content of the bucket each time: if another
        machine was faster, or if the answer to a request that succeeded was lost. A damaged object
        is reported, kept under another name, and replaced.

        Raises:
          UnavailableError: if the bucket does not answer.
        """
        for _ in range(_MOST_CONFLICTS):
            content, version = self._now()
            before = content.encoded()
            edit(content)
            content.precision = content.precision or self._precision
            after = content.encoded()
            with contextlib.suppress(ConflictError):
                if version is None:
                    self._objects.create(FILE, after)
                elif after != before:
                    self._objects.replace(FILE, after, version)
                return content
            time.sleep(random.uniform(0.02, 0.3))
        raise UnavailableError(f"{FILE} changes faster than it can be written")

    def _now(self) -> tuple[Content, str | None]:
        """Returns the content, and the version of the object; None if it is missing."""
        try:
            text, version = self._objects.read(FILE)
        except MissingError:
            return Content(), None
        try:
            return decoded(text), version
        except WrongError as error:
            self._objects.delete(ASIDE)
            with contextlib.suppress(ConflictError):  # Another machine has the same copy.
                self._objects.create(ASIDE, text)
            log(
                f"{self._place}/{FILE} is damaged: {error}; copied it to {ASIDE}; a new one is "
                "made, and failed points are run once more"
            )
            return Content(), version
