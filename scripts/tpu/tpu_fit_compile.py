"""Compiles StableHLO with libtpu: the second half of tpu_fit.py, in the compiler's own environment.

    python scripts/tpu/tpu_fit_compile.py v5e:2x4              the slice: cores, bytes of a core
    python scripts/tpu/tpu_fit_compile.py v5e:2x4 update.mlir  the program: bytes, collectives, cost

It prints one JSON object. It needs no TPU, because libtpu compiles for a slice by its name. As
under TPUStrategy, every core of the slice runs the whole program of one replica.

The module uses private parts of JAX and parses the compiler's text, so scripts/tpu/tpu_fit.sh pins
the versions.
"""

import json
import math
import os
import re
import sys
from typing import Any

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
_COLLECTIVE = re.compile(
    r"^\s*(?:ROOT )?%\S+ = (.*?) "
    r"(all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\("
)

# Matches calls=%one and branch_computations={%one, %two}.
_CALLED = re.compile(r"\b\w+=\{?(%[^,}\s]+(?:, %[^,}\s]+)*)")


def devices(topology: str) -> list[Any]:
    """Returns the cores of a slice such as v5e:2x4, one for each replica.

    The two cores of a v4 chip count as one ("megacore"). For later generations, the slice's name
    implies this.
    """
    from jax.experimental import topologies

    kind = {"chip_config_name": "megacore"} if topology.startswith("v4:") else {}
    return topologies.get_topology_desc(platform="tpu", topology_name=topology, **kind).devices


def compile_for(cores: list[Any], text: str) -> Any:
    """Compiles a StableHLO module for one replica on each core; returns the executable.

    Raises:
      JaxRuntimeError: if the compiler refuses the module.
    """
    import numpy as np
    from jax._src import compiler
    from jax._src.interpreters import mlir
    from jax._src.lib import _jax
    from jaxlib.mlir import ir

    replicas = np.arange(len(cores))[:, None]  # [replicas, partitions]
    options = compiler.get_compile_options(
        num_replicas=len(cores), num_partitions=1, device_assignment=replicas
    )
    with mlir.make_ir_context():
        module = ir.Module.parse(text)
        return compiler.backend_compile_and_load(
            cores[0].client, module, _jax.DeviceList(tuple(cores)), options, []
        )


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


def collectives(hlo: str) -> list[dict[str, Any]]:
    """Returns each collective in HLO: its `kind`, its result's `bytes`, and if it is `in_loop`."""
    bodies: dict[str, list[str]] = {}
    name = ""
    for line in hlo.splitlines():
        if line.endswith("{") and (match := re.match(r"(?:ENTRY )?%(\S+) \(", line)):
            name = match[1]
        bodies.setdefault(name, []).append(line)
    looped, waiting = set(), re.findall(r" while\(.*?body=%([\w.-]+)", hlo)
    while waiting:
        if (name := waiting.pop()) not in looped:
            looped.add(name)
            called = _CALLED.findall("\n".join(bodies.get(name, [])))
            waiting += [name.strip("%") for names in called for name in names.split(", ")]
    return [
        {"kind": match[2], "bytes": _bytes(match[1]), "in_loop": name in looped}
        for name, lines in bodies.items()
        for line in lines
        if (match := _COLLECTIVE.match(line))
    ]


def _bytes(shapes: str) -> int:
    """Returns the bytes of a shape such as `f32[3,3]{1,0:T(8,128)}`, or of a tuple of shapes."""
    total = 0
    for kind, dimensions in re.findall(r"\b(pred|bf16|[fsuc]\d+)\[([\d,]*)\]", shapes):
        bits = 8 if kind == "pred" else int(re.sub(r"\D", "", kind))
        total += bits // 8 * math.prod(int(d) for d in dimensions.split(",") if d)
    return total


def figures(executable: Any) -> dict[str, Any]:
    """Returns the memory and the cost of a compiled program on one core.

    The cost of a loop is that of one iteration, because the number of iterations is an argument.
    """
    memory = executable.get_compiled_memory_stats()
    cost = executable.cost_analysis()
    hlo = executable.hlo_modules()[0].to_string()
    program = memory.generated_code_size_in_bytes
    kept = memory.argument_size_in_bytes
    made = memory.output_size_in_bytes - memory.alias_size_in_bytes + memory.temp_size_in_bytes
    return {
        "needs": kept + made + program,
        "arguments": kept,
        "temporaries": made,
        "program": program,
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
        return {"cores": len(cores), "kind": cores[0].device_kind, "has": too_large["has"]}


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
