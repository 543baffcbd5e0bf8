"""A torch module to a shared library: BatchNorm folded, imported, scheduled, linked."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from hwnas.devices.compile.cache import Shapes
from hwnas.devices.compile.target import as_target, is_cross

# TVM ships no types: IRModule, Target and Executable are Any throughout this package.
Module = Any

Schedule = Literal["cpu", "none"]

SCHEDULE_VERSION = "0"  # part of the cache key: change it with every change of the code that is generated


@dataclass(frozen=True, slots=True)
class Lowered:
    """A relax module ready for code generation, and which of its functions the schedule left as they were."""

    module: Module
    scheduled: tuple[str, ...]
    fallbacks: tuple[tuple[str, str], ...]  # function, reason


def fold_batch_norm(model: nn.Module) -> nn.Module:
    """An inference copy of `model` with every convolution's BatchNorm folded in, where fx can trace it."""
    from torch.fx.experimental.optimization import fuse

    model = copy.deepcopy(model).eval()
    try:
        return fuse(model)
    except Exception:  # fx runs the model's own code on proxies, which may raise anything
        return model  # `lower` decomposes what is left


def import_torch(model: nn.Module, inputs: Shapes) -> Module:
    """The relax module of `model` on float32 inputs of these shapes, parameters as constants."""
    from tvm.relax.frontend.torch import from_exported_program

    examples = tuple(torch.zeros(shape) for shape in inputs)
    with torch.no_grad():
        exported = torch.export.export(fold_batch_norm(model), examples)
        return from_exported_program(exported, keep_params_as_input=False)


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
    """Legalise, fuse and schedule a relax module for `target` (JSON text). "none" leaves TVM's plain loops."""
    import tvm
    from tvm import relax
    from tvm.relax.backend.cpu_generic import pipeline

    tvm_target = as_target(target)
    passes = [
        *pipeline.library_dispatch_passes(tvm_target),
        relax.transform.DecomposeOpsForInference(),
        relax.transform.CanonicalizeBindings(),
        *pipeline.legalize_passes(tvm_target),
    ]
    with tvm_target:
        return Lowered(tvm.transform.Sequential(passes)(module), (), ())


def link(lowered: Lowered, target: str, path: Path) -> None:
    """Generate code and link it into a shared library at `path`, whose name no process has loaded before."""
    import tvm
    from tvm import relax
    from tvm.relax.backend.cpu_generic import pipeline

    tvm_target = as_target(target)
    passes = tvm.transform.Sequential(
        [*pipeline.dataflow_lower_passes(tvm_target), *pipeline.finalize_passes(tvm_target)]
    )
    with tvm_target:
        executable = relax.build(lowered.module, tvm_target, relax_pipeline=passes)
    executable.export_library(str(path), **_linker(target))


def _linker(target: str) -> dict[str, str | Callable[..., None]]:
    triple = str(as_target(target).attrs.get("mtriple", ""))
    if not is_cross(target):
        return {}
    if "android" in triple:
        from tvm.support import ndk

        return {"fcompile": ndk.create_shared}
    return {"cc": f"{triple}-g++"}
