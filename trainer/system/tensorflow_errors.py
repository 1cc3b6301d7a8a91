"""Translation of TensorFlow's errors into errors that name the cause and the remedy."""

import contextlib
from collections.abc import Callable, Iterator

import tensorflow as tf

from trainer.errors import ExitError

# Returns the error to raise in place of TensorFlow's, or None if TensorFlow's has another cause.
Translation = Callable[[tf.errors.OpError], ExitError | None]


@contextlib.contextmanager
def translate(*translations: Translation) -> Iterator[None]:
    """Replaces a TensorFlow error in the block by the first error that a translation returns."""
    try:
        yield
    except tf.errors.OpError as error:
        for translation in translations:
            if (other := translation(error)) is not None:
                raise other from error
        raise
