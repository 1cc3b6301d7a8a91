"""Translates TensorFlow's errors into errors that name the cause and a remedy."""

import contextlib
from collections.abc import Callable, Iterator

import tensorflow as tf

from trainer.errors import ExitError

# Takes TensorFlow's error. Returns the error that replaces it, or None to let the next translation
# try.
Translation = Callable[[tf.errors.OpError], ExitError | None]


@contextlib.contextmanager
def translate(*translations: Translation) -> Iterator[None]:
    """Replaces a TensorFlow error in the block by the first error that a translation returns.

    If no translation returns an error, TensorFlow's error is raised again.
    """
    try:
        yield
    except tf.errors.OpError as error:
        for translation in translations:
            if (other := translation(error)) is not None:
                raise other from error
        raise
