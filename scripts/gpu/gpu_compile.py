"""Compiles StableHLO by XLA for NVIDIA GPUs, in the compiler's own environment.

    python -m scripts.gpu.gpu_compile h100x8              the GPUs: their number, bytes of one
    python -m scripts.gpu.gpu_compile h100x8 update.mlir  the program: bytes, collectives, kernels

It prints one JSON object. It needs no GPU, because XLA compiles for a description of one. Without a
GPU, XLA cannot measure which algorithm of a kernel is the fastest, so it takes the default ones.
"""

import json
import os
import pathlib
import re
import sys
from collections import Counter
from typing import Any

from scripts.fit.compile import collectives, compile_for, computations, loops, memory

# What differs between the cards: NVIDIA's data sheets, and openxla/xla's target_config/specs for
# a100 and h100 (SXM, 80 GB). An l4 is not described there; its memory is that of nvidia-smi.
_CARDS: dict[str, dict[str, Any]] = {
    "a100": {
        "name": "NVIDIA A100-SXM4-80GB",
        "capability": "major: 8",
        "core_count": 108,
        "fpus_per_core": 64,
        "memory_bandwidth": 2_039_040_000_000,
        "l2_cache_size": 41_943_040,
        "clock_rate_ghz": 1.41,
        "device_memory_size": 85_100_068_864,
        "threads_per_core_limit": 2048,
        "shared_memory_per_core": 167_936,
        "shared_memory_per_block_optin": 166_912,
    },
    "h100": {
        "name": "NVIDIA H100 80GB HBM3",
        "capability": "major: 9",
        "core_count": 132,
        "fpus_per_core": 128,
        "memory_bandwidth": 3_352_320_000_000,
        "l2_cache_size": 52_428_800,
        "clock_rate_ghz": 1.98,
        "device_memory_size": 84_942_979_072,
        "threads_per_core_limit": 2048,
        "shared_memory_per_core": 233_472,
        "shared_memory_per_block_optin": 232_448,
    },
    "l4": {
        "name": "NVIDIA L4",
        "capability": "major: 8 minor: 9",
        "core_count": 58,
        "fpus_per_core": 128,
        "memory_bandwidth": 300_000_000_000,
        "l2_cache_size": 50_331_648,
        "clock_rate_ghz": 2.04,
        "device_memory_size": 24_152_899_584,
        "threads_per_core_limit": 1536,
        "shared_memory_per_core": 102_400,
        "shared_memory_per_block_optin": 101_376,
    },
}
# What is the same on all cards.
_COMMON = {
    "threads_per_block_limit": 1024,
    "threads_per_warp": 32,
    "shared_memory_per_block": 49_152,
    "block_dim_limit_x": 2**31 - 1,
    "block_dim_limit_y": 65_535,
    "block_dim_limit_z": 65_535,
    "registers_per_core_limit": 65_536,
    "registers_per_block_limit": 65_536,
}
# An instruction of HLO: its result's type, and its name. Those of _FREE start no kernel.
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%\S+ = (\(.*?\)|\S+) ([a-z][\w-]*)\(")
_FREE = {
    *("bitcast", "constant", "get-tuple-element", "parameter", "tuple", "while", "after-all"),
    *("all-reduce-start", "all-reduce-done"),
}
_CONVOLUTION = re.compile(r'custom_call_target="__cudnn\$conv(\w+)"')


def description(card: str) -> str:
    """Returns XLA's description of a card, a GpuTargetConfigProto as text."""
    own = {k: v for k, v in _CARDS[card].items() if k not in ("name", "capability")}
    numbers = " ".join(f"{name}: {value}" for name, value in {**_COMMON, **own}.items())
    return (
        f"gpu_device_info {{ {numbers} "
        f"cuda_compute_capability {{ {_CARDS[card]['capability']} }} }} "
        'platform_name: "CUDA" dnn_version_info { major: 9 minor: 10 } '
        "runtime_version { major: 12 minor: 8 patch: 0 } "
        f'device_description_str: "{_CARDS[card]["name"]}"'
    )


def devices(card: str, count: int) -> list[Any]:
    """Returns `count` GPUs of one host, one for each replica."""
    from jax.experimental import topologies

    return topologies.get_topology_desc(
        platform="cuda", target_config=description(card), topology=f"1x{count}x1"
    ).devices


def kernels(hlo: str) -> dict[str, int]:
    """Returns how many kernels one pass of the accumulation starts, and the rest of the update."""
    bodies, looped = computations(hlo), loops(hlo)
    (entry,) = re.findall(r"^ENTRY %(\S+) \(", hlo, re.MULTILINE)

    def count(names: list[str]) -> int:
        lines = [_INSTRUCTION.match(line) for name in names for line in bodies.get(name, [])]
        return sum(match[2] not in _FREE for match in lines if match)

    return {"pass": count(looped), "update": count([entry])}


def convolutions(hlo: str) -> dict[str, int]:
    """Returns how many of XLA's convolutions cuDNN computes, by kind and type; others are "XLA"."""
    found: Counter[str] = Counter()
    for line in hlo.splitlines():
        match = _INSTRUCTION.match(line)
        if match and (cudnn := _CONVOLUTION.search(line)):
            found[f"cuDNN {cudnn[1]} {match[1].lstrip('(').partition('[')[0]}"] += 1
        elif match and match[2] == "convolution":
            found[f"XLA {match[1].partition('[')[0]}"] += 1
    return dict(sorted(found.items()))


def main(target: str, *paths: str) -> dict[str, Any]:
    """Describes the GPUs, or compiles the module at a path; returns the object to print."""
    found = re.fullmatch(r"([a-z0-9]+)x([1-9]\d{0,2})", target)
    if not found or found[1] not in _CARDS:
        return {"unknown": f"the cards are {', '.join(_CARDS)}"}
    card, count = found[1], int(found[2])
    has, kind = _CARDS[card]["device_memory_size"], _CARDS[card]["name"]
    if not paths:
        return {"devices": count, "kind": kind, "has": has}
    compiler = next(pathlib.Path(path) for path in sys.path if path.endswith("site-packages"))
    os.environ |= {
        "JAX_PLATFORMS": "cpu",  # Keeps JAX from looking for a GPU.
        "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1",
        # Autotuning would run kernels.
        "XLA_FLAGS": "--xla_gpu_autotune_level=0 "
        f"--xla_gpu_cuda_data_dir={compiler / 'nvidia/cuda_nvcc'}",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    with open(paths[0], encoding="utf-8") as file:
        executable = compile_for(devices(card, count), file.read())
    hlo = executable.hlo_modules()[0].to_string()
    used = memory(executable)
    return {
        "fits": used["needs"] <= has,
        **used,
        "collectives": collectives(hlo),
        "kernels": kernels(hlo),
        "convolutions": convolutions(hlo),
    }


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
