"""Configs for tests: what the program makes of flags, without the program."""

from absl import flags

from trainer import config


def parsed(*arguments: str) -> config.Config:
    """The Config of a command line, whatever an earlier one of this process said."""
    for name in config.names():
        flags.FLAGS[name].unparse()
    return config.from_flags(["crescendo", *arguments])
