"""Names the dataset whose examples a Python program holds: --dataset=python.

Only the program that gives the examples has them. So a command line with this name is refused.
"""

from typing import Any

from trainer.errors import UserError

DATASET = "python"
# The splits of this dataset are the arguments of trainer.train that hold them.
TRAINING, EVALUATION = "data", "evaluation_data"


def are_arrays(data: Any) -> bool:
    """Returns whether `data` is a tuple of two arrays, and not a source of examples."""
    is_pair = isinstance(data, tuple) and len(data) == 2
    return is_pair and all(hasattr(each, "ndim") for each in data)


def refusal(split: str) -> UserError:
    """Returns the error for a split that this call has not received."""
    return UserError(
        f"only a Python program has the examples of --dataset={DATASET}: "
        f"trainer.train(..., {split}=...).\n"
        "Give them to this function too, as trainer.evaluate(..., data=...), or name a dataset."
    )
