"""python -m trainer [plan|train|range_test|evaluate|export|convert|sweep|report] --flag=value"""

from trainer.main import entry

if __name__ == "__main__":
    entry()
