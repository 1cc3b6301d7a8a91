# Sourced by fit.sh and pack.sh: names the interpreter, and makes the compiler's environment, .venv-gpu-compiler.
# shellcheck shell=bash
if [ -n "${VIRTUAL_ENV:-}" ]; then
  python=$VIRTUAL_ENV/bin/python
  CDPATH='' cd -- "$(dirname "${BASH_SOURCE[0]}")/../.."
else
  . "$(dirname "${BASH_SOURCE[0]}")/../setup.sh"
  python=.venv/bin/python
fi
# The versions are pinned, because scripts/fit/compile.py calls private parts of JAX and parses XLA's text.
# Without --no-deps, pip would also install CUDA's libraries (3 GB), which only running needs.
packages=(jax==0.10.2 jaxlib==0.10.2 jax-cuda12-plugin==0.10.2 jax-cuda12-pjrt==0.10.2
  nvidia-cuda-nvcc-cu12==12.9.86 numpy==2.4.6 scipy==1.17.1 ml_dtypes==0.6.0 opt_einsum==3.4.0 flatbuffers==25.12.19)
if [ "$(cat .venv-gpu-compiler/installed 2>/dev/null)" != "${packages[*]}" ]; then
  echo "Setting up .venv-gpu-compiler with ${packages[*]} (once, a minute or two) ..." >&2
  rm -rf .venv-gpu-compiler
  "$python" -m venv .venv-gpu-compiler
  .venv-gpu-compiler/bin/python -m pip install --quiet --disable-pip-version-check --no-deps "${packages[@]}"
  echo "${packages[*]}" > .venv-gpu-compiler/installed
fi
