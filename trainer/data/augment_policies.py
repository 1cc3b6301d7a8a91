"""Applies the policies RandAugment (Cubuk et al. 2019) and TrivialAugment (Müller & Hutter 2021).

RandAugment draws several operations for an image independently, and applies them in turn. All have
the same magnitude, and each has a random sign. TrivialAugment applies one operation, with a random
strength and sign. A layer applies one operation to each image of a micro-batch. The images of a
micro-batch get different operations. So a layer groups the images by kind of operation, and
computes each group at once.
"""

import functools
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from trainer.config.augment_list import Augmentation
from trainer.data import augment_cases
from trainer.data.augment_cases import Cases, Kind, Strength
from trainer.data.augment_operations import (
    autocontrast_tables,
    equalize_tables,
    move,
    recolour,
    sharpen,
    toward_grey,
)
from trainer.errors import UserError
from trainer.nn.splitmix64 import further_bits, random_bits, shift_right

# An image's position is the number of examples that the run consumes before the image. The hash of
# (seed, position) starts a sequence of random 64-bit words. Each of at most eight layers uses one
# word, and the first layer uses the word with this index.
_FIRST_WORD = 8


def check(asked: Augmentation, shape: tuple[int, int, int], name: str) -> None:
    """Checks that the policy can augment images of `shape` (h, w, c) of the dataset `name`.

    Raises:
      UserError: if `asked` has a policy, and the images do not have 1 or 3 channels.
    """
    if asked.policy and shape[2] not in (1, 3):
        raise UserError(
            f"--augment={asked.policy} needs images of 1 or 3 channels, and those of {name} have "
            f"{shape[2]}: leave {asked.policy} out."
        )


def policy(images: tf.Tensor, positions: tf.Tensor, seed: int, *, asked: Augmentation) -> tf.Tensor:
    """Applies the operations of the policy `asked.policy` to images.

    Args:
        images: uint8 [b, h, w, c], with 1 or 3 channels.
        positions: int64 [b], number of examples that the run consumed before each image.
        seed: seed of the run.
        asked: settings: the policy, and RandAugment's number of layers and magnitude.
    """
    height, width, channels = images.shape[1:]
    if asked.policy == "randaugment":
        layers = asked.layers
        strengths = [augment_cases.randaugment(asked.magnitude, height, width)]
    else:
        layers, strengths = 1, augment_cases.trivialaugment()
    apply = _layer(tuple(strengths), (height, width, channels))
    words = further_bits(random_bits(positions, seed), layers, _FIRST_WORD)  # [b, layers]
    result = images
    for layer in range(layers):
        result = apply(result, words[:, layer])
    return tf.ensure_shape(result, images.shape)


@functools.cache
def _layer(
    strengths: tuple[Strength, ...], shape: tuple[int, int, int]
) -> Callable[..., tf.Tensor]:
    """Returns a function that applies one operation to each image, as a random word decides.

    The function takes images of `shape` and one uint64 word per image. TensorFlow traces it once,
    for all layers and micro-batches, because a trace takes a second.
    """
    cases = augment_cases.tabulate(strengths, *shape)
    images, words = tf.TensorSpec([None, *shape], tf.uint8), tf.TensorSpec([None], tf.uint64)

    @tf.function(input_signature=[images, words], autograph=False)
    def layer(images: tf.Tensor, words: tf.Tensor) -> tf.Tensor:
        return applied(images, drawn(words, len(strengths)), cases)

    return layer


def drawn(words: tf.Tensor, strengths: int) -> tf.Tensor:
    """Returns the index of a case for each word, int32 [b] in [0, 14 · strengths · 2).

    A case is one of the 14 operations with a strength and a sign. The highest 32 bits of a word,
    uint64, decide the operation, the next 31 bits the strength, and the lowest bit the sign. The
    number of the operation is its bits modulo 14. The number of the strength is its bits modulo
    `strengths` (at most 31). All values are equally likely, up to a relative difference of 2e-8.
    """
    operation = tf.cast(shift_right(words, 32), tf.int64) % len(augment_cases.OPERATIONS)
    middle = tf.bitwise.bitwise_and(shift_right(words, 1), tf.constant(2**31 - 1, tf.uint64))
    strength = tf.cast(middle, tf.int64) % strengths
    sign = tf.cast(tf.bitwise.bitwise_and(words, tf.constant(1, tf.uint64)), tf.int64)
    return tf.cast((operation * strengths + strength) * 2 + sign, tf.int32)


def applied(images: tf.Tensor, case: tf.Tensor, cases: Cases) -> tf.Tensor:
    """Applies an operation, with a strength and a sign, to each image, uint8 [b, h, w, c].

    `case`, int32 [b], holds the index in `cases` of each image's operation, strength and sign.
    """
    kind = tf.gather(cases.kind, case)  # [b]
    # tf.where finds the images of each kind. With tf.dynamic_partition, Grappler would assume that
    # all kinds have equally many images. If all images were of one kind, the graph would fail.
    places = [tf.where(kind == each)[:, 0] for each in Kind]
    _, moved, *recoloured, greyed, sharpened = places
    fixed, stretched, equalized = (tf.gather(images, at) for at in recoloured)
    channels = images.shape[3]
    tables = [
        tf.repeat(
            tf.gather(cases.table, tf.gather(case, recoloured[0]))[:, None], channels, axis=1
        ),
        autocontrast_tables(stretched),
        equalize_tables(equalized),
    ]

    def numbers(values: np.ndarray, at: tf.Tensor) -> tf.Tensor:
        return tf.gather(values, tf.gather(case, at))

    results = [
        tf.gather(images, places[Kind.KEEP]),
        move(tf.gather(images, moved), numbers(cases.affine, moved)),
        recolour(tf.concat([fixed, stretched, equalized], 0), tf.concat(tables, 0)),
        toward_grey(
            tf.gather(images, greyed), numbers(cases.to_mean, greyed), numbers(cases.factor, greyed)
        ),
        sharpen(tf.gather(images, sharpened), numbers(cases.factor, sharpened)),
    ]
    everyone = tf.cast(tf.concat(places, 0), tf.int32)
    return tf.reshape(tf.dynamic_stitch([everyone], [tf.concat(results, 0)]), tf.shape(images))
