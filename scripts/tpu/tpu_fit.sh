#!/usr/bin/env bash
# Computes with libtpu's compiler whether a recipe fits on a TPU slice, before you rent one:
#   scripts/tpu/tpu_fit.sh --topology=v5e:2x4 --flagfile=flags/imagenet_resnet_50_smith.flags
# The compiler has its own environment in the checkout, .venv-tpu-compiler, made on first use (300 MB to
# download, 1.3 GB on disk), because tensorflow-tpu aborts with a libtpu this new. The rest uses the
# active virtual environment, or .venv.
set -eu
if [ -n "${VIRTUAL_ENV:-}" ]; then
  python=$VIRTUAL_ENV/bin/python
  CDPATH='' cd -- "$(dirname "${BASH_SOURCE[0]}")/../.."
else
  . "$(dirname "${BASH_SOURCE[0]}")/../setup.sh"
  python=.venv/bin/python
fi
# The versions are pinned, because scripts/fit/compile.py calls private parts of JAX and parses libtpu's text.
packages=(jax==0.10.2 jaxlib==0.10.2 libtpu==0.0.42.1)
if [ "$(cat .venv-tpu-compiler/installed 2>/dev/null)" != "${packages[*]}" ]; then
  echo "Setting up .venv-tpu-compiler with ${packages[*]} (once, a minute or two) ..." >&2
  rm -rf .venv-tpu-compiler
  "$python" -m venv .venv-tpu-compiler
  .venv-tpu-compiler/bin/python -m pip install --quiet --disable-pip-version-check "${packages[@]}"
  echo "${packages[*]}" > .venv-tpu-compiler/installed
fi
exec "$python" -m scripts.tpu.tpu_fit "$@"
