"""Lines of a plan about the model: frozen layers, layer groups, and the balance of its classes.

These functions import TensorFlow only to build the layers for --layer_decay, and to refuse a model
that does not exist.
"""

from trainer.config.flags import Config
from trainer.data import class_balance, image_listing
from trainer.nn.models import names
from trainer.schedule import trajectory


def check_name(model: str) -> None:
    """Checks that --model=`model` exists, as far as this can be told without TensorFlow.

    Raises:
      UserError: if it does not exist.
    """
    names.check_sizes(model)
    if not names.may_exist(model):
        from trainer.nn.models import registry

        registry.check_name(model)


def lines(config: Config, examples: int) -> list[str]:
    """Returns lines about frozen layers, layer groups, and class weights or balanced sampling."""
    found = []
    if config.freeze and trajectory.unfreeze_position(config, examples) != 0:
        until = config.unfreeze_epochs
        end = "" if until is None else f" up to epoch {until:g}; the step is then traced once more"
        found.append(f"layers that match {config.freeze} are frozen{end}")
    if config.layer_decay != 1:
        found += _layer_groups(config).splitlines()
    return [*found, *class_balance.described(config, _class_counts(config))]


def _layer_groups(config: Config) -> str:
    """Builds the model without reading images; returns a table of the groups of --layer_decay."""
    from trainer.nn import layer_groups
    from trainer.training import model_outline

    return layer_groups.table(model_outline.build(config), config.layer_decay)


def _class_counts(config: Config) -> dict[str, int] | None:
    """Returns the number of training examples of each class; None if not needed or not known."""
    balances = config.class_weights is not None or config.sampling == class_balance.BALANCED
    if not balances or config.train_examples or not image_listing.is_listed(config.dataset):
        return None
    return image_listing.list_files(config.dataset, config.train_split).counts()
