"""Schedule of the image size: the side of the training images changes at given epochs of a run.

Small images at the start of a run cost little, because the time of an example is about proportional
to its number of pixels. Touvron et al. 2019 (1906.06423) train at a lower resolution than they
use for tests. Tan & Le 2021 (2104.00298), section 4, raise the resolution during the run.
"""

import math
from collections.abc import Iterable

from trainer.config import image_sizes
from trainer.config.flags import Config
from trainer.errors import UserError
from trainer.schedule.curve import Curve


def from_config(config: Config) -> Curve | None:
    """Returns the curve from epochs to the side in pixels; None if --image_sizes is not set.

    >>> curve = from_config(Config(image_sizes=("128@0%", "192@75%"), epochs=16))
    >>> [curve(epochs) for epochs in (0, 11.9, 12)]
    [128, 128, 192]

    Raises:
      UserError: if an epoch is out of order or not inside the run, or the run is a range test.
    """
    texts = config.image_sizes
    if not texts:
        return None
    if config.anneal == "range_test":
        raise UserError(
            f"--image_sizes={','.join(texts)} changes the images, and a range test changes the "
            "learning rate alone.\nUse --image_size instead."
        )
    sizes, starts = image_sizes.sizes(texts), image_sizes.starts(texts, config.epochs)
    for text, start, before in zip(texts[1:], starts[1:], starts, strict=False):
        if not before < start < config.epochs:
            raise UserError(
                f"--image_sizes has {text}, which is not after epoch {before:g} and inside the run "
                f"of {config.epochs:g} epochs: sort the sizes by epoch, or raise --epochs."
            )
    # As in anneal.step, float rounding must not delay a change by an update.
    turns = [start - 1e-9 for start in starts[1:]]
    return Curve(
        lambda epochs: sizes[sum(epochs >= turn for turn in turns)],
        lambda epochs: next((turn for turn in turns if turn > epochs), math.inf),
        lambda _: True,
    )


def relative_cost(parts: Iterable[tuple[int, int]], size: int) -> float:
    """Returns a run's computation divided by the computation of a run on images of side `size`.

    The computation of an example is assumed to be proportional to its number of pixels.

    >>> relative_cost([(600, 96), (400, 192)], 192)
    0.55

    Args:
      parts: pairs of a number of examples and the side of their images, in pixels.
      size: side of the images to compare with, in pixels.
    """
    counted = list(parts)
    examples = sum(count for count, _ in counted)
    return sum(count * (side / size) ** 2 for count, side in counted) / examples
