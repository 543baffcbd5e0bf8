"""A torch module to a shared library: BatchNorm folded, imported, scheduled, linked."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass
from inspect import Parameter, signature
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from hwnas.devices.compile.cache import Shapes
from hwnas.devices.compile.channels_last import channels_last
from hwnas.devices.compile.linker import linker
from hwnas.devices.compile.schedule import schedule_function
from hwnas.devices.compile.target import as_target, is_gpu
from hwnas.devices.compile.tiles import Machine

# TVM ships no types: IRModule, Target and Executable are Any throughout this package.
Module = Any

Schedule = Literal["cpu", "none"]

SCHEDULE_VERSION = "3"  # part of the cache key: change it with every change of the code that is generated


# Operators whose import as they are gives the kernels that torch's decompositions give, in 0.5 CPU-s less a block (of
# 1.4). Others are decomposed first: a BatchNorm imported whole, for one, computes something else.
WHOLE_OPERATORS = frozenset(
    f"aten.{name}"
    for name in (
        "conv2d.default",
        "relu.default",
        "hardswish.default",
        "hardsigmoid.default",
        "mean.dim",
        "mul.Tensor",
        "add.Tensor",
        "linear.default",
    )
)

# relax's OpPatternKind: 2 is injective, 4 fuses with the element-wise operators behind it; the first prefix holds
PATTERNS = {"last_enter": 2, "last_leave": 2, "last_": 4}


@dataclass(frozen=True, slots=True)
class Lowered:
    """A relax module ready for code generation, and which of its functions the schedule left as they were."""

    module: Module
    scheduled: tuple[str, ...]
    fallbacks: tuple[tuple[str, str], ...]  # function, reason


def fold_batch_norm(model: nn.Module, inputs: int = 1) -> nn.Module:
    """An inference copy of `model` with every convolution's BatchNorm folded in, where fx can trace it.

    It is called with so many `inputs`; what `forward` takes beyond them keeps its default.
    """
    from torch.fx import symbolic_trace
    from torch.fx.experimental.optimization import fuse

    model = copy.deepcopy(model).eval()
    beyond = list(signature(model.forward).parameters.values())[inputs:]
    defaults = {parameter.name: parameter.default for parameter in beyond if parameter.default is not Parameter.empty}
    try:
        return fuse(symbolic_trace(model, concrete_args=defaults) if defaults else model, no_trace=bool(defaults))
    except Exception:  # fx runs the model's own code on proxies, which may raise anything
        return model  # `lower` decomposes what is left


def import_torch(model: nn.Module, inputs: Shapes) -> Module:
    """The relax module of `model` on float32 inputs of these shapes, parameters as constants."""
    from tvm.relax.frontend.torch import from_exported_program

    examples = tuple(torch.zeros(shape) for shape in inputs)
    with torch.no_grad():
        exported = torch.export.export(fold_batch_norm(model, len(examples)), examples)
    used = {str(node.target) for node in exported.graph.nodes if node.op == "call_function"}
    decompose = not used <= WHOLE_OPERATORS
    return from_exported_program(exported, keep_params_as_input=False, run_ep_decomposition=decompose)


def content_key(module: Module, target: str, versions: str) -> str:
    """32 hex digits of everything that decides what is generated: the graph, its constants, target and versions."""
    import tvm
    import tvm_ffi
    from tvm import relax

    digest = hashlib.sha256()
    structure = tvm_ffi.structural_hash(module, skip_tensor_content=True)
    digest.update(f"{structure}\n{target}\n{versions}\n".encode())

    def visit(node: Any) -> None:
        if isinstance(node, tvm.ir.GenericConst) and hasattr(node.value, "numpy"):
            data = node.value.numpy()
            digest.update(f"{data.dtype}{data.shape}".encode())
            digest.update(data.tobytes())

    for _, function in sorted(module.functions.items(), key=lambda item: str(item[0].name_hint)):
        if isinstance(function, relax.Function):
            relax.analysis.post_order_visit(function, visit)
    return digest.hexdigest()[:32]


def lower(module: Module, target: str, *, schedule: Schedule = "cpu") -> Lowered:
    """Legalise, fuse and schedule a relax module for `target` (JSON text). "none" leaves a CPU TVM's plain loops.

    A GPU's kernels take TVM's own schedules, DLight's, whatever `schedule` says: plain loops do not run there.
    """
    import tvm
    from tvm import relax
    from tvm.relax.backend.cpu_generic import pipeline

    tvm_target = as_target(target)
    if is_gpu(target):
        return _for_gpu(module, tvm_target)
    first = [
        *pipeline.library_dispatch_passes(tvm_target),
        relax.transform.DecomposeOpsForInference(),
        relax.transform.CanonicalizeBindings(),
    ]
    with tvm_target:
        module = tvm.transform.Sequential(first)(module)
        if schedule == "none":
            return Lowered(tvm.transform.Sequential(pipeline.legalize_passes(tvm_target))(module), (), ())
        machine = Machine.of(target)
        module = channels_last(module, machine)
        module = tvm.transform.Sequential(
            [
                relax.transform.DeadCodeElimination(),
                relax.transform.LegalizeOps(),
                relax.transform.AnnotateTIROpPattern(),
                relax.transform.FoldConstant(),
            ]
        )(module)
        module = _mark_patterns(module)
        module = tvm.transform.Sequential([relax.transform.FuseOps(), relax.transform.FuseTIR()])(module)
        return _schedule(module, machine)


def _for_gpu(module: Module, tvm_target: Any) -> Lowered:
    """The passes of TVM's own pipeline for this kind of GPU that come before the memory plan."""
    import tvm
    from tvm import relax

    first = [relax.transform.DecomposeOpsForInference(), relax.transform.CanonicalizeBindings()]
    with tvm_target:  # some of the lists read it
        rest = [*relax.pipeline.library_dispatch_passes(tvm_target), *relax.pipeline.legalize_passes(tvm_target)]
        module = tvm.transform.Sequential([*first, *rest])(module)
    kernels = [str(n.name_hint) for n, f in module.functions.items() if isinstance(f, tvm.tirx.PrimFunc)]
    return Lowered(module, tuple(sorted(kernels)), ())


def _mark_patterns(module: Module) -> Module:
    """Tell fusion what our kernels are: an analysis of their index arithmetic calls them opaque."""
    from tvm import tirx

    for name, function in module.functions.items():
        pattern = next((p for prefix, p in PATTERNS.items() if str(name.name_hint).startswith(prefix)), None)
        if isinstance(function, tirx.PrimFunc) and pattern is not None:
            module.update_func(name, function.with_attr("op_pattern", pattern))
    return module


def _schedule(module: Module, machine: Machine) -> Lowered:
    from tvm import tirx

    scheduled: list[str] = []
    fallbacks: list[tuple[str, str]] = []
    for name, function in module.functions.items():
        if not isinstance(function, tirx.PrimFunc):
            continue
        try:
            ours = schedule_function(function, machine)
        except Exception as error:  # TVM rejects a loop nest by many types; its plain loops are right all the same
            fallbacks.append((str(name.name_hint), f"{type(error).__name__}: {str(error).strip().splitlines()[-1]}"))
            continue
        module.update_func(name, ours.with_attr("tirx.is_scheduled", True))
        scheduled.append(str(name.name_hint))
    return Lowered(module, tuple(sorted(scheduled)), tuple(sorted(fallbacks)))


def link(lowered: Lowered, target: str, path: Path) -> None:
    """Generate code and link it into a shared library at `path`, whose name no process has loaded before.

    Raises what `linker` raises, before any code is generated, where this machine has no linker for the target.
    """
    options = linker(target)
    generate(lowered, target).export_library(str(path), **options)


def generate(lowered: Lowered, target: str) -> Any:
    """The TVM executable of a lowered module, object code inside, not linked."""
    import tvm
    from tvm import relax
    from tvm.relax.backend.cpu_generic import pipeline

    tvm_target = as_target(target)
    passes = tvm.transform.Sequential(
        [*pipeline.dataflow_lower_passes(tvm_target), *pipeline.finalize_passes(tvm_target)]
    )
    with tvm_target:
        return relax.build(lowered.module, tvm_target, relax_pipeline=passes, tir_pipeline=_tir_pipeline())


def _tir_pipeline() -> str:
    """The name of TVM's own pipeline with the accumulators kept on the stack, from where LLVM moves them to registers.

    Left alone, TVM takes a local buffer from its workspace pool, and each multiply-add goes through memory.
    """
    import tvm
    from tvm.tirx import compilation_pipeline

    name = "hwnas"

    def factory() -> tuple[Any, Any, Any]:
        first, host, device = tvm.tirx.get_tir_pipeline("default")
        stack = tvm.tirx.transform.prim_func_pass(_on_stack, opt_level=0)
        return tvm.transform.Sequential([first, stack]), host, device

    compilation_pipeline.register_tir_pipeline(name, factory)
    return name


def _on_stack(function: Any, module: Module, context: Any) -> Any:
    import tvm_ffi
    from tvm import tirx

    del module, context

    def keep(allocation: Any) -> Any:
        if allocation.buffer.scope() != "local":
            return allocation
        annotations = {**allocation.annotations, "disable_lower_builtin": tirx.IntImm("int32", 1)}
        return tirx.AllocBuffer(allocation.buffer, annotations)

    return function.with_body(tvm_ffi.structural_map(function.body, [(tirx.AllocBuffer, keep)]))
