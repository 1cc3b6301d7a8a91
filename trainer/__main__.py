"""Runs the program: python -m trainer COMMAND --flag=value."""

from trainer.main import entry

if __name__ == "__main__":
    entry()
