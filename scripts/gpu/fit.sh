#!/usr/bin/env bash
# Computes with XLA's compiler whether a recipe fits on NVIDIA GPUs, and what its update starts there:
#   scripts/gpu/fit.sh --device=h100 --gpus=8 --flagfile=flags/imagenet_resnet_50_goyal_8192.flags
# No GPU is needed. The compiler has its own environment in the checkout, .venv-gpu-compiler, made on first
# use (350 MB to download, 1.2 GB on disk). The rest uses the active virtual environment, or .venv.
set -eu
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
exec "$python" -m scripts.gpu.gpu_fit "$@"
