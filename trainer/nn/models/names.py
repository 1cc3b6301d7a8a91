"""Names of this program's models, without TensorFlow, which the models themselves import."""

import re

from trainer.errors import UserError

RESNET_50, VGG_16, PLAIN_9 = "resnet_50", "vgg_16", "plain_9"
# Models of this program whose names have no sizes.
NAMED = (RESNET_50, VGG_16, PLAIN_9)
# The sizes are the keys of vision_transformer.SIZES.
VIT = re.compile(r"vit_(ti|s|b)_([1-9][0-9]{0,3})")
WIDE_RESNET = re.compile(r"wide_resnet_([0-9]{1,4})_([0-9]{1,4})")
# Maps further names that --model accepts to the names of constructors in keras.applications.
ALIASES = {"inception_resnet_v2": "InceptionResNetV2"}


def is_own(name: str) -> bool:
    """Returns whether `name` is a model that this program defines, or an alias."""
    named = name in NAMED or name in ALIASES
    return named or bool(VIT.fullmatch(name) or WIDE_RESNET.fullmatch(name))


def may_exist(name: str) -> bool:
    """Returns whether `name` may be a model, as far as this can be told without TensorFlow.

    It cannot be told of a function of the user, and of a name in keras.applications, which begins
    with a capital letter.
    """
    module, _, function = name.partition(":")
    return is_own(name) or bool(module and function) or name[:1].isupper()


def check_sizes(name: str) -> None:
    """Checks the depth and the width in the name of a wide residual network.

    Raises:
        UserError: if the depth is not 6n + 4 with n ≥ 1, or the width is below 1.
    """
    if not (match := WIDE_RESNET.fullmatch(name)):
        return
    depth, width = map(int, match.groups())
    blocks, rest = divmod(depth - 4, 6)
    if rest or blocks < 1:
        near = [6 * n + 4 for n in (blocks, blocks + 1) if n >= 1]
        raise UserError(
            f"wide_resnet of depth {depth} does not exist, since a depth is 6n + 4: use "
            f"{' or '.join(map(str, near or [10]))}"
        )
    if width < 1:
        raise UserError(f"wide_resnet of width {width} does not exist: use a width of 1 or more")
