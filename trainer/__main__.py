"""python -m trainer [plan|train] --flag=value ..."""

from trainer.main import entry

if __name__ == "__main__":
    entry()
