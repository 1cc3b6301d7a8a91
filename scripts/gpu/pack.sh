#!/usr/bin/env bash
# Packs a recipe's update, to be measured on a machine with a GPU that has JAX and not TensorFlow:
#   scripts/gpu/pack.sh --output=build/resnet_50 --flagfile=flags/imagenet_resnet_50_goyal_256.flags --micro_batch_size=128
# Then copy the folder there, and run: python resnet_50/measure.py --torch
set -eu
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
exec "$python" -m scripts.gpu.pack "$@"
