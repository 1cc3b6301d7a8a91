"""Checkpoints of a few variables, written at once."""

from trainer.run_dir.checkpoints import Checkpoints


def opened(folder, variables, *, keep=3):
    return Checkpoints(folder, variables, keep=keep)


def save(checkpoints, update, **progress):
    checkpoints.save(update, {"update": update, **progress})
    assert checkpoints.wait() == update
