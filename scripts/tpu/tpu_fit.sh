#!/usr/bin/env bash
# Computes with libtpu's compiler whether a recipe fits on a TPU slice, before you rent one:
#   scripts/tpu/tpu_fit.sh --topology=v5e:2x4 --flagfile=flags/imagenet_resnet_50_smith.flags
# The compiler has its own environment in the checkout, .venv-tpu-compiler, made on first use (300 MB to
# download, 1.3 GB on disk), because tensorflow-tpu aborts with a libtpu this new. The rest uses the
# active virtual environment, or .venv.
set -eu
. "$(dirname "${BASH_SOURCE[0]}")/../fit/environment.sh"
compiler_environment .venv-tpu-compiler jax==0.10.2 jaxlib==0.10.2 libtpu==0.0.42.1
exec "$python" -m scripts.tpu.tpu_fit "$@"
