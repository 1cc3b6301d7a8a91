"""The commands, by the names that a command line has for them."""

from collections.abc import Callable

from trainer.config import Config, UserError


def command(name: str) -> Callable[[Config], int]:
    """The run of the command `name`; only its own imports, so that plan answers without TensorFlow.

    Raises:
      UserError: where there is none.
    """
    match name:
        case "plan":
            from trainer.commands.plan import run
        case "train":
            from trainer.commands.train import run
        case "range_test":
            from trainer.commands.range_test import run
        case "evaluate":
            from trainer.commands.evaluate import run
        case "export":
            from trainer.commands.export import run
        case "convert":
            from trainer.commands.convert import run
        case "sweep":
            from trainer.commands.sweep import run
        case "report":
            from trainer.commands.report import run
        case _:
            raise UserError(
                f"unknown command {name!r}: plan, train, range_test, evaluate, export, convert, "
                "sweep or report."
            )
    return run
