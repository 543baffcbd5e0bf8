"""What a TVM target says of a CPU: its vectors, its registers, and the target of the CPU at hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_X86_VECTORS = ("avx", "avx2", "fma", "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")


def as_target(target: str) -> Any:  # a tvm.target.Target, which has no types
    """The TVM target of JSON text. Raises ValueError for text that is not the JSON of a dictionary."""
    import tvm

    fields = json.loads(target)
    if not isinstance(fields, dict):
        raise ValueError(f"a target is the JSON text of a dictionary, not {target!r}")
    return tvm.target.Target(fields)


def host_target() -> str:
    """JSON text of the TVM target of this CPU, one core.

    A virtual machine may show LLVM a processor it does not know or hide a feature of one that it does:
    the vector extensions follow the kernel's own list wherever the two differ.
    """
    from tvm.target import codegen

    fields: dict[str, Any] = {"kind": "llvm", "mcpu": str(codegen.llvm_get_system_cpu()), "num-cores": 1}
    flags = _cpu_flags(Path("/proc/cpuinfo"))
    if flags & {"sse2"}:
        claimed = set(codegen.llvm_get_cpu_features(as_target(json.dumps(fields))))
        differing = [name for name in _X86_VECTORS if (name in flags) != (name in claimed)]
        if differing:
            fields["mattr"] = [("+" if name in flags else "-") + name for name in differing]
    return json.dumps(fields, sort_keys=True)


def _cpu_flags(cpuinfo: Path) -> set[str]:
    if not cpuinfo.exists():
        return set()
    for line in cpuinfo.read_text().splitlines():
        if line.startswith("flags"):
            return set(line.partition(":")[2].split())
    return set()


def vector_lanes(target: str) -> int:
    """float32 numbers in a vector register: 16 with AVX-512, 8 with AVX2, else 4 (SSE, NEON)."""
    from tvm.target import codegen

    features = set(codegen.llvm_get_cpu_features(as_target(target)))
    if "avx512f" in features:
        return 16
    return 8 if "avx2" in features else 4


def vector_registers(target: str) -> int:
    """Vector registers of the instruction set: 32 with AVX-512 and on aarch64, else 16."""
    fields = json.loads(target)
    wide = vector_lanes(target) == 16 or str(fields.get("mtriple", "")).startswith(("aarch64", "arm64"))
    return 32 if wide else 16


def is_cross(target: str) -> bool:
    """Whether `target` names a machine other than this one."""
    from tvm.target import codegen

    triple = str(json.loads(target).get("mtriple", ""))
    host = str(codegen.llvm_get_system_triple())
    return bool(triple) and triple.partition("-")[0] != host.partition("-")[0]
