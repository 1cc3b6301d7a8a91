"""Exports a packed update for GPUs and CPUs, in the compiler's own environment.

    python scripts/gpu/gpu_export.py FOLDER

It reads FOLDER/update.mlir, and writes update.cuda.jax and update.cpu.jax. These files can be read
by later versions of JAX, within JAX's guarantee of six months.
"""

import os
import pathlib
import re
import sys
from typing import Any


def main(folder: pathlib.Path) -> None:
    """Exports the update in `folder`."""
    # Labels and positions are int64, which JAX has only if it is asked for.
    os.environ["JAX_ENABLE_X64"] = "1"
    os.environ["JAX_PLATFORMS"] = "cpu"
    import jax
    from jax import export, tree_util
    from jax._src.export._export import _module_to_bytecode
    from jax._src.interpreters import mlir
    from jaxlib.mlir import ir

    def shaped(kind: Any) -> Any:
        tensor = ir.RankedTensorType(kind)
        name = str(tensor.element_type)
        types = {"i32": "int32", "i64": "int64", "ui8": "uint8", "f32": "float32"}
        return jax.core.ShapedArray(tuple(tensor.shape), jax.numpy.dtype(types[name]))

    # `measure.py` gives the arguments' memory to the results by itself.
    text = re.sub(r" \{tf\.aliasing_output = \d+ : i32\}", "", (folder / "update.mlir").read_text())
    with mlir.make_ir_context():
        module = ir.Module.parse(text)
        function = next(op for op in module.body if op.name.value == "main")
        inputs = [shaped(kind) for kind in function.type.inputs]
        outputs = [shaped(kind) for kind in function.type.results]
        content = _module_to_bytecode(module)
    in_tree = tree_util.tree_structure(((0.0,) * len(inputs), {}))
    out_tree = tree_util.tree_structure((0.0,) * len(outputs))
    for platform in ("cuda", "cpu"):
        exported = export.Exported(
            fun_name="update",
            in_tree=in_tree,
            in_avals=tuple(inputs),
            out_tree=out_tree,
            out_avals=tuple(outputs),
            _has_named_shardings=True,
            _in_named_shardings=(None,) * len(inputs),
            _out_named_shardings=(None,) * len(outputs),
            in_shardings_hlo=(None,) * len(inputs),
            out_shardings_hlo=(None,) * len(outputs),
            nr_devices=1,
            platforms=(platform,),
            ordered_effects=(),
            unordered_effects=(),
            disabled_safety_checks=(),
            mlir_module_serialized=content,
            calling_convention_version=export.maximum_supported_calling_convention_version,
            module_kept_var_idx=tuple(range(len(inputs))),
            uses_global_constants=False,
            _get_vjp=None,
        )
        (folder / f"update.{platform}.jax").write_bytes(exported.serialize())


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
