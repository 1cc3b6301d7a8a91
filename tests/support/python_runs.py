"""Trains twice on flags and once on a source, in one process that ends as other programs do."""

import sys

import trainer
from tests.support.squares import Source

FLAGS = {
    "model": "tests.support.models:tiny",
    "train_split": "train[:1000]",
    "eval_split": "test[:500]",
    "epochs": 1,
    "initial_batch_size": 64,
    "max_batch_size": 64,
    "micro_batch_size": 64,
    "log_every_updates": 5,
    "precision": "float32",
    "deterministic": True,
}
OWN = FLAGS | {"train_split": None, "eval_split": None, "initial_batch_size": 32}


def main(folder: str) -> None:
    for seed in (0, 1):
        trainer.train(f"{folder}/{seed}", seed=seed, **FLAGS)
    data, evaluation_data = Source(320), Source(64, seed=1)
    trainer.train(f"{folder}/source", data=data, evaluation_data=evaluation_data, **OWN)


if __name__ == "__main__":
    main(sys.argv[1])
