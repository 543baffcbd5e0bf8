"""Runs the OpenCL that is emitted for a GPU on any OpenCL device, such as PoCL's CPU: kernel by kernel, no TVM runtime.

TVM's wheel has no OpenCL runtime, so this small one reads the network's calls off the lowered module. It knows
straight-line networks of float32 whose operators are one kernel each.
"""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hwnas.devices.compile import Lowered

Floats = NDArray[np.float32]

_AXES = ("x", "y", "z")
_KERNEL = re.compile(r"__kernel void (\w+)\(([^)]*)\)")


def opencl_queue() -> Any:  # a pyopencl.CommandQueue
    """A queue on the first OpenCL device of this machine; skips where there is none."""
    cl = pytest.importorskip("pyopencl", reason="pyopencl is not installed: pip install pyopencl")
    try:
        devices = [device for platform in cl.get_platforms() for device in platform.get_devices()]
    except cl.LogicError:  # what its loader says where no platform is registered
        devices = []
    if not devices:
        pytest.skip("no OpenCL device on this machine: apt-get install pocl-opencl-icd")
    return cl.CommandQueue(cl.Context(devices[:1]))


def forward(queue: Any, lowered: Lowered, source: str, x: Floats) -> Floats:
    """The first output of a lowered network whose kernels are `source`."""
    import pyopencl as cl
    from tvm import ir, relax

    program = cl.Program(queue.context, source).build()
    signatures = dict(_KERNEL.findall(source))
    main = lowered.module["main"]
    held: dict[Any, Any] = {main.params[0]: _on_device(queue, x)}
    shapes: dict[Any, list[int]] = {}

    def value(expr: Any) -> Any:
        return _on_device(queue, expr.value.numpy()) if isinstance(expr, ir.GenericConst) else held[expr]

    for binding in (b for block in main.body.blocks for b in block.bindings):
        if isinstance(binding.value, relax.Tuple):
            result = binding.value.fields[0]
            continue
        function, inputs = binding.value.args[0], binding.value.args[1]
        name = f"{function.name_hint}_kernel"
        primitive = lowered.module[function]
        shapes[binding.var] = [int(n) for n in primitive.params[-1].ty.shape]
        held[binding.var] = cl.Buffer(queue.context, cl.mem_flags.READ_WRITE, 4 * math.prod(shapes[binding.var]))
        values = [*map(value, inputs.fields), held[binding.var]]
        buffers = {f"{p.name}_ptr": v for p, v in zip(primitive.params, values, strict=True)}
        groups, threads = _extents(primitive)
        arguments = [buffers[argument.split()[-1]] for argument in signatures[name].split(",")]
        work = [g * t for g, t in zip(groups, threads, strict=True)]
        getattr(program, name)(queue, work, threads, *arguments)
    out = np.empty(shapes[result], np.float32)
    cl.enqueue_copy(queue, out, held[result])
    return out


def _on_device(queue: Any, array: Floats) -> Any:
    import pyopencl as cl

    flags = cl.mem_flags.READ_ONLY | cl.mem_flags.COPY_HOST_PTR
    return cl.Buffer(queue.context, flags, hostbuf=np.ascontiguousarray(array, np.float32))


def _extents(primitive: Any) -> tuple[list[int], list[int]]:
    """Groups and threads of a group along x, y and z, from the loops that are bound to them."""
    import tvm_ffi
    from tvm import tirx

    found: dict[str, int] = {}

    def note(loop: Any) -> None:
        if loop.thread_binding is not None:
            found[str(loop.thread_binding.thread_tag)] = int(loop.extent)

    tvm_ffi.structural_walk(primitive.body, [(tirx.For, note)])
    return [found.get(f"blockIdx.{a}", 1) for a in _AXES], [found.get(f"threadIdx.{a}", 1) for a in _AXES]
