"""Makes Keras use TensorFlow in the caller's process."""

import os
import sys

from trainer.errors import UserError


def prepare() -> None:
    """Selects Keras' backend; must run before this program imports TensorFlow or Keras.

    Raises:
      UserError: if Keras is already imported with another backend.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # Hides TensorFlow's start-up messages.
    keras = sys.modules.get("keras")
    if keras is None:
        os.environ["KERAS_BACKEND"] = "tensorflow"
    elif (backend := keras.backend.backend()) != "tensorflow":
        raise UserError(
            f"Keras is already imported with the backend {backend}, and this program needs "
            "tensorflow.\n"
            "Set KERAS_BACKEND=tensorflow before Keras is imported, and start Python again."
        )
