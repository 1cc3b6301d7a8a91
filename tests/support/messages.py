"""Messages of the program's log, for tests that run the program in their own process."""

import contextlib
from collections.abc import Iterator

from trainer.system import output


@contextlib.contextmanager
def logged() -> Iterator[list[str]]:
    """Yields a list to which the messages in the block are added, in place of being printed."""
    messages: list[str] = []
    output.log_above_bar(lambda text, file: messages.append(text))
    try:
        yield messages
    finally:
        output.log_above_bar(None)
