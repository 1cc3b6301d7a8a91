# Sourced by fit.sh and pack.sh: sets `python`, and makes the compiler's environment, .venv-gpu-compiler.
# shellcheck shell=bash
. "$(dirname "${BASH_SOURCE[0]}")/../fit/environment.sh"
# Without --no-deps, pip would also install CUDA's libraries (3 GB), which only running needs.
compiler_environment .venv-gpu-compiler --no-deps jax==0.10.2 jaxlib==0.10.2 jax-cuda12-plugin==0.10.2 \
  jax-cuda12-pjrt==0.10.2 nvidia-cuda-nvcc-cu12==12.9.86 numpy==2.4.6 scipy==1.17.1 ml_dtypes==0.6.0 \
  opt_einsum==3.4.0 flatbuffers==25.12.19
