"""Augments a micro-batch of images, as a pure function of (seed, position).

All random bits come from a 64-bit hash of (seed, position). An image's position is the number of
examples that the run consumes before the image. So batches, replicas and restarts do not change an
example's augmentation. In the next epoch, the example has another position and so another
augmentation. With one seed, different positions have different hashes.

Crop and flip use the bits of the hash. `decode.random_crop`, for --augment=imagenet, uses the hash
as the key of TensorFlow's Philox generator. The augmentations `strong`, `erasing` and the policies
(RandAugment and TrivialAugment) need more than 64 bits. They use random 64-bit words: the
splitmix64 sequence that starts at the hash. `erasing` and the policies use different words, so they
do not change each other's results. `strong` uses all words, so it excludes `erasing` and the
policies. Words of this sequence also choose the replacements for bad examples, such as damaged
files. Mixup and cutmix (`mixing`) use another hash.
"""

import functools
from collections.abc import Callable

import tensorflow as tf

from trainer.config.augment_list import Augmentation
from trainer.data.augment_erasing import erasing
from trainer.data.augment_policies import policy
from trainer.data.augment_shift import shifted
from trainer.data.augment_strong import strong

# Maps images uint8 [b, h, w, c], positions int64 [b] and the run's seed to images of equal shape.
Augment = Callable[[tf.Tensor, tf.Tensor, int], tf.Tensor]


def augmenter(asked: Augmentation) -> Augment:
    """Returns a function that applies the changes in `asked`, except resized crops and mixing."""
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
