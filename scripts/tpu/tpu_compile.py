"""Compiles StableHLO with libtpu, in the compiler's own environment.

    python -m scripts.tpu.tpu_compile v5e:2x4              the slice: cores, bytes of a core
    python -m scripts.tpu.tpu_compile v5e:2x4 update.mlir  the program: bytes, collectives, cost

It prints one JSON object. It needs no TPU, because libtpu compiles for a slice by its name. As
under TPUStrategy, every core of the slice runs the whole program of one replica.
"""

import json
import os
import re
import sys
from typing import Any

from scripts.fit.compile import collectives, compile_for, memory

# Environment variables, set before libtpu is loaded.
_ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",  # Keeps JAX from looking for a TPU.
    "TPU_SKIP_MDS_QUERY": "1",  # Keeps libtpu from asking a metadata server.
    # Without the next three, libtpu warns. Their values have no effect, because the slice's name
    # describes the slice.
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    # Without this, libtpu would wait for a lock, which only the use of a TPU needs.
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
# This program needs more memory than any core has. So the compiler refuses it, and its message
# states the core's memory.
_TOO_MUCH = """
module @too_much {
  func.func @main(%x: tensor<1048576x1048576xf32>) -> tensor<1048576x1048576xf32> {
    %y = stablehlo.add %x, %x : tensor<1048576x1048576xf32>
    return %y : tensor<1048576x1048576xf32>
  }
}
"""
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def devices(topology: str) -> list[Any]:
    """Returns the cores of a slice such as v5e:2x4, one for each replica.

    The two cores of a v4 chip count as one ("megacore"). For later generations, the slice's name
    implies this.
    """
    from jax.experimental import topologies

    kind = {"chip_config_name": "megacore"} if topology.startswith("v4:") else {}
    return topologies.get_topology_desc(platform="tpu", topology_name=topology, **kind).devices


def size(text: str) -> int:
    """Converts the compiler's notation, such as 15.75G, to bytes."""
    number, unit = re.fullmatch(r"([\d.]+)([KMGT]?)", text).groups()
    return int(float(number) * _UNITS[unit])


def refusal(message: str) -> dict[str, int] | None:
    """Returns the bytes that a refused program `needs` and that a core `has`, from the message.

    Returns None if the message has another form.
    """
    for pattern in (
        r"Used ([\d.]+[KMGT]?) of ([\d.]+[KMGT]?) hbm",
        r"\(([\d.]+[KMGT]?)\) exceeds available HBM \(([\d.]+[KMGT]?)\)",
    ):
        if match := re.search(pattern, message):
            return {"needs": size(match[1]), "has": size(match[2])}
    return None


def figures(executable: Any) -> dict[str, Any]:
    """Returns the memory and the cost of a compiled program on one core.

    The cost of a loop is that of one iteration, because the number of iterations is an argument.
    """
    cost = executable.cost_analysis()
    hlo = executable.hlo_modules()[0].to_string()
    return {
        **memory(executable),
        "flops": cost["flops"],
        "bytes_accessed": cost["bytes accessed"],
        "cycles": sum(map(int, re.findall(r'"estimated_cycles":"(\d+)"', hlo))),
        "collectives": collectives(hlo),
    }


def main(topology: str, *paths: str) -> dict[str, Any]:
    """Describes the slice, or compiles the module at a path; returns the object to print."""
    os.environ.update(_ENVIRONMENT)
    from jax.errors import JaxRuntimeError

    try:
        cores = devices(topology)
    except JaxRuntimeError as error:
        return {"unknown": str(error)}
    try:
        if not paths:
            return figures(compile_for(cores[:1], _TOO_MUCH))
        with open(paths[0], encoding="utf-8") as file:
            return {"fits": True} | figures(compile_for(cores, file.read()))
    except JaxRuntimeError as error:
        too_large = refusal(str(error))
        if too_large is None:
            raise
        if paths:
            return {"fits": False} | too_large
        return {"devices": len(cores), "kind": cores[0].device_kind, "has": too_large["has"]}


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
