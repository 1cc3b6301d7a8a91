"""Compiles StableHLO by XLA for devices that this machine need not have, and reads what XLA made.

The module runs in the compiler's own environment, without TensorFlow. It uses private parts of JAX
and parses the compiler's text, so the scripts that make the environment pin the versions.
"""

import math
import re
from typing import Any

_COLLECTIVE = re.compile(
    r"^\s*(?:ROOT )?%\S+ = (.*?) "
    r"(all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\("
)

# Matches calls=%one and branch_computations={%one, %two}.
_CALLED = re.compile(r"\b\w+=\{?(%[^,}\s]+(?:, %[^,}\s]+)*)")


def compile_for(devices: list[Any], text: str) -> Any:
    """Compiles a StableHLO module for one replica on each device; returns the executable.

    Raises:
      JaxRuntimeError: if the compiler refuses the module.
    """
    import numpy as np
    from jax._src import compiler
    from jax._src.interpreters import mlir
    from jax._src.lib import _jax
    from jaxlib.mlir import ir

    replicas = np.arange(len(devices))[:, None]  # [replicas, partitions]
    options = compiler.get_compile_options(
        num_replicas=len(devices), num_partitions=1, device_assignment=replicas
    )
    with mlir.make_ir_context():
        module = ir.Module.parse(text)
        return compiler.backend_compile_and_load(
            devices[0].client, module, _jax.DeviceList(tuple(devices)), options, []
        )


def computations(hlo: str) -> dict[str, list[str]]:
    """Returns the lines of each computation in HLO, by its name."""
    bodies: dict[str, list[str]] = {}
    name = ""
    for line in hlo.splitlines():
        if line.endswith("{") and (match := re.match(r"(?:ENTRY )?%(\S+) \(", line)):
            name = match[1]
        bodies.setdefault(name, []).append(line)
    return bodies


def loops(hlo: str) -> list[str]:
    """Returns the names of the computations that are bodies of loops in HLO."""
    return re.findall(r" while\(.*?body=%([\w.-]+)", hlo)


def memory(executable: Any) -> dict[str, int]:
    """Returns the bytes that a compiled program takes on one device, with its parts."""
    stats = executable.get_compiled_memory_stats()
    program = stats.generated_code_size_in_bytes
    kept = stats.argument_size_in_bytes
    made = stats.output_size_in_bytes - stats.alias_size_in_bytes + stats.temp_size_in_bytes
    return {
        "needs": kept + made + program,
        "arguments": kept,
        "temporaries": made,
        "program": program,
    }


def collectives(hlo: str) -> list[dict[str, Any]]:
    """Returns each collective in HLO: its `kind`, its result's `bytes`, and if it is `in_loop`."""
    bodies = computations(hlo)
    looped, waiting = set(), loops(hlo)
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
