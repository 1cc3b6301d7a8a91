"""Names of this program's models, without TensorFlow, which the models themselves import."""

import re

RESNET_50, VGG_16, PLAIN_9 = "resnet_50", "vgg_16", "plain_9"
# The sizes are the keys of vision_transformer.SIZES.
VIT = re.compile(r"vit_(ti|s|b)_([1-9]\d*)")
WIDE_RESNET = re.compile(r"wide_resnet_(\d+)_(\d+)")
# Maps further names that --model accepts to the names of constructors in keras.applications.
ALIASES = {"inception_resnet_v2": "InceptionResNetV2"}


def is_own(name: str) -> bool:
    """Returns whether `name` is a model that this program defines, or an alias."""
    named = name in (RESNET_50, VGG_16, PLAIN_9) or name in ALIASES
    return named or bool(VIT.fullmatch(name) or WIDE_RESNET.fullmatch(name))


def may_exist(name: str) -> bool:
    """Returns whether `name` may be a model, as far as this can be told without TensorFlow.

    It cannot be told of a function of the user, and of a name in keras.applications, which begins
    with a capital letter.
    """
    return is_own(name) or ":" in name or name[:1].isupper()
