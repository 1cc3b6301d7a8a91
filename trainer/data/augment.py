"""Augments a micro-batch of images, as a pure function of (seed, position).

All random bits come from a 64-bit hash of (seed, position). An image's position is the number of
examples that the run consumes before the image. So batches, replicas and restarts do not change an
example's augmentation. In the next epoch, the example has another position and so another
augmentation. Seed and position have 64 bits each, so the hashes of a run do not repeat.

Crop and flip use the hash itself. `decode.random_crop` (imagenet) uses it as the key of
TensorFlow's Philox generator. All other augmentations need more bits than the hash has. They use
words of the splitmix64 sequence that starts at the hash, and each has words of its own. So an
augmentation does not depend on the other items of --augment. Only `strong` uses all words, so it
excludes the other items that need words. Replacements of bad examples use the sequence too.
"""

import functools
from collections.abc import Callable

import tensorflow as tf

from trainer.config.augment_list import Augmentation
from trainer.data.augment_erasing import erasing
from trainer.data.augment_policies import policy
from trainer.data.augment_shift import shifted
from trainer.data.augment_strong import strong

# Maps images uint8 [b, h, w, c], positions int64 [b] and the run's seed to images of this shape.
Augment = Callable[[tf.Tensor, tf.Tensor, int], tf.Tensor]


def augmenter(asked: Augmentation) -> Augment:
    """Returns the function that augments images as `asked`, except for resized crops and mixing."""
    steps: list[Augment] = []
    if asked.strong:
        steps.append(strong)
    if asked.crop or asked.flip:
        steps.append(functools.partial(shifted, crop=asked.crop, flip=asked.flip))
    if asked.policy:
        steps.append(functools.partial(policy, asked=asked))
    if asked.erasing:
        probability, area = asked.erasing_probability, asked.erasing_area
        steps.append(functools.partial(erasing, probability=probability, area=area))

    def augmented(images: tf.Tensor, positions: tf.Tensor, seed: int) -> tf.Tensor:
        for step in steps:
            images = step(images, positions, seed)
        return images

    return augmented
