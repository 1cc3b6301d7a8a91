"""convert: adds an index to a prepared TFDS dataset; a run then need not load the whole dataset."""

from trainer.config.flags import Config
from trainer.data.tfds.convert import convert
from trainer.errors import UserError
from trainer.system.output import say


def run(config: Config) -> int:
    """Converts --dataset in the folder --data_dir, and prints the folder of the new files.

    Raises:
      UserError: if --dataset is missing, or the dataset cannot be converted.
    """
    if "dataset" not in config.given:
        raise UserError("--dataset is missing: name one to convert, as in --dataset=imagenet2012.")
    folder = convert(config.dataset, config.data_dir)
    say(f"{config.dataset}: " + (f"converted in {folder}" if folder else "it has an index already"))
    return 0
