"""Checks and describes the flags of mixing and of the loss, which decide the training targets."""

from trainer.config.augment_list import MIXING
from trainer.config.flags import Config
from trainer.errors import UserError


def check(config: Config) -> None:
    """Checks that the flags of mixing (mixup and cutmix) and of the loss fit together.

    Raises:
      UserError: if images are mixed, but a ghost batch (the examples that share batch-norm
        statistics) has only one image. Also if a flag has no effect.
    """
    mixing = config.augmentation.mixing
    if mixing and config.ghost_batch_size == 1:
        raise UserError(
            f"--augment={config.augment} mixes the images of a ghost batch, and "
            "--ghost_batch_size=1 leaves no second image.\n"
            f"Raise --ghost_batch_size to 2 or more, or leave {' and '.join(mixing)} out."
        )
    if config.loss != "sigmoid":
        for name in ("sigmoid_reduction", "sigmoid_threshold"):
            if (value := getattr(config, name)) != getattr(Config, name):
                raise UserError(
                    f"--{name}={value} is for --loss=sigmoid, not for --loss={config.loss}.\n"
                    f"Give --loss=sigmoid, or leave --{name} out."
                )
    elif config.sigmoid_threshold is not None and not mixing:
        raise UserError(
            f"--sigmoid_threshold={config.sigmoid_threshold:g} is a share of a mixed image, and "
            f"--augment={config.augment} mixes no images.\n"
            f"Add {' or '.join(MIXING)} to --augment, or leave --sigmoid_threshold out."
        )


def described(config: Config) -> list[str]:
    """Returns a line about mixing, if images are mixed, and a line about a sigmoid loss."""
    lines = []
    if mixing := config.augmentation.mixing:
        alphas = {"mixup": config.mixup_alpha, "cutmix": config.cutmix_alpha}
        named = " or ".join(f"{name} with alpha {alphas[name]:g}" for name in mixing)
        drawn = ", one drawn for each" if len(mixing) > 1 else ", in each"
        lines.append(
            f"mixing: {named}{drawn} ghost batch of {config.ghost_batch_size}; the top1 of "
            "training counts the label with the larger share"
        )
    if config.loss == "sigmoid":
        reduced = {"sum": "summed over", "mean": "averaged over"}[config.sigmoid_reduction]
        threshold = config.sigmoid_threshold
        targets = "" if threshold is None else f"; the target of a share above {threshold:g} is 1"
        lines.append(
            f"loss: binary cross-entropy {reduced} classes{targets}; noise_scale does not depend "
            "on the loss"
        )
    return lines
