"""convert: gives a prepared set an index, for training on what is too large for memory."""

from trainer.config.flags import Config
from trainer.data.tfds.convert import convert
from trainer.errors import UserError
from trainer.system.output import say


def run(config: Config) -> int:
    """Converts the set of --dataset in --data_dir, and says where.

    Raises:
      UserError: for a set that cannot be converted.
    """
    if "dataset" not in config.given:
        raise UserError(
            "--dataset is missing: name the set to convert, as in --dataset=imagenet2012."
        )
    folder = convert(config.dataset, config.data_dir)
    say(f"{config.dataset}: " + (f"converted in {folder}" if folder else "it has an index already"))
    return 0
