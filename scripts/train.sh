#!/usr/bin/env bash
# Runs the main job, a growing batch on Fashion-MNIST, in runs/fashion_mnist_grow. Sets up on first use.
# Extra flags override the recipe's: scripts/train.sh --epochs=2 --model_dir=runs/short
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
exec .venv/bin/python -m trainer train \
  --flagfile=flags/fashion_mnist_grow.flags --model_dir=runs/fashion_mnist_grow "$@"
