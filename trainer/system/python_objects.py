"""Objects that a Python program gives to a run beside its flags, which are text.

The objects belong to the current context (`contextvars`), so that two calls in two threads do not
mix their objects.
"""

import contextlib
import contextvars
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any


@dataclasses.dataclass(frozen=True, eq=False)
class PythonObjects:
    """Objects of one call.

    Attributes:
      examples: examples by split; the data folder knows their types.
      class_names: names of the classes of these examples; None: they are derived.
      model: function of (image_shape, classes) that builds the model; None: --model names it.
      on_log: function that receives each logged point; None: no function.
    """

    examples: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    class_names: tuple[str, ...] | None = None
    model: Callable[..., Any] | None = None
    on_log: Callable[[dict[str, Any]], None] | None = None


_NONE = PythonObjects()
_given: contextvars.ContextVar[PythonObjects | None]
_given = contextvars.ContextVar("python_objects", default=None)


def given() -> PythonObjects:
    """Returns the objects of the current call; they are empty on the command line."""
    return _given.get() or _NONE


@contextlib.contextmanager
def giving(objects: PythonObjects) -> Iterator[None]:
    """Makes `objects` the objects of the current call while the context lasts."""
    token = _given.set(objects)
    try:
        yield
    finally:
        _given.reset(token)
