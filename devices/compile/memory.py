"""How much memory the activations of a compiled network need, from the plan that its code follows."""

from __future__ import annotations

from math import prod
from typing import Any


def activation_bytes(module: Any, target: str) -> int:
    """Peak bytes of activations of a lowered relax module: what its plan reserves, its inputs and its outputs.

    TVM plans memory ahead: storages that are not alive together share one reservation, and every reservation lives as
    long as the network. Raises ValueError for a shape that is only known at run time.
    """
    import tvm
    from tvm import relax
    from tvm.relax.backend.cpu_generic import pipeline

    from hwnas.devices.compile.target import as_target

    tvm_target = as_target(target)
    passes = [*pipeline.dataflow_lower_passes(tvm_target), *pipeline.finalize_passes(tvm_target)]
    plan = next(index for index, step in enumerate(passes) if str(step.info.name) == "StaticPlanBlockMemory")
    with tvm_target:
        main = tvm.transform.Sequential(passes[: plan + 1])(module)["main"]
    found: list[int] = [_bytes(parameter.ty) for parameter in main.params]

    def visit(node: Any) -> None:
        if not isinstance(node, relax.Call) or not isinstance(node.op, tvm.ir.Op):
            return
        if node.op.name == "relax.memory.alloc_storage":
            found.append(prod(_sizes(node.args[0])))
        elif node.op.name == "relax.builtin.alloc_tensor":  # outlives the network: an output
            found.append(_bytes(node.ty))

    relax.analysis.post_order_visit(main, visit)
    return sum(found)


def _sizes(shape: Any) -> list[int]:
    try:
        return [int(size) for size in shape.values]
    except (TypeError, AttributeError):
        raise ValueError(f"a shape of {shape} is only known at run time: its memory cannot be planned") from None


def _bytes(tensor: Any) -> int:
    import tvm

    return prod(_sizes(tensor.shape)) * int(tvm.DataType(tensor.dtype).itemsize)
