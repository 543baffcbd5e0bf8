"""What a TVM target says of a CPU: its vectors, its registers, and the target of the CPU at hand."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

from hwnas.devices.compile.elf import machine_family

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
    """float32 numbers in a vector: 16 with AVX-512, 8 with AVX2, 4 with SSE, NEON or RISC-V's V, 1 without any.

    A RISC-V vector has at least the 128 bits that V promises; longer ones are used where the target names them (zvl).
    """
    from tvm.target import codegen

    features = set(codegen.llvm_get_cpu_features(as_target(target)))
    family = target_machine(target)
    if family in ("x86_64", "i386"):
        return 16 if "avx512f" in features else 8 if "avx2" in features else 4
    if family == "riscv":
        bits = [int(f[3:-1]) for f in features if f.startswith("zvl") and f.endswith("b") and f[3:-1].isdigit()]
        return max(bits, default=128) // 32 if has_scalable_vectors(target) else 1
    if family in ("aarch64", "arm"):
        return 4 if "neon" in features else 1
    return 4 if "simd128" in features else 1


def vector_registers(target: str) -> int:
    """Registers that hold those vectors: 32 with AVX-512, on aarch64 and on RISC-V, else 16.

    Where there are no vectors these are the registers of single numbers: 32 on RISC-V and of ARM's VFP.
    """
    lanes = vector_lanes(target)
    family = target_machine(target)
    return 32 if lanes == 16 or family in ("aarch64", "riscv") or (family == "arm" and lanes == 1) else 16


def has_scalable_vectors(target: str) -> bool:
    """Whether TVM writes vectors of a length that the board decides: on RISC-V with V since apache/tvm#19776."""
    from tvm.target import codegen

    return target_machine(target) == "riscv" and "v" in set(codegen.llvm_get_cpu_features(as_target(target)))


def is_gpu(target: str) -> bool:
    """Whether a target's kernels run on a graphics processor, so that its loops must be bound to threads."""
    return "gpu" in as_target(target).keys


def host_triple(target: str) -> str:
    """The LLVM triple of what runs the host code, a GPU's kernels being launched from it; "" for this machine."""
    fields = json.loads(target)
    host = fields if fields.get("kind") == "llvm" else fields.get("host", {})
    return str(host.get("mtriple", ""))


def target_machine(target: str) -> str:
    """The machine that libraries of a target are for, in the words of `elf_machine`; wasm32 has no ELF files."""
    family = machine_family((host_triple(target) or platform.machine()).partition("-")[0])
    return "arm" if family == "thumb" else family


def is_cross(target: str) -> bool:
    """Whether the host code of `target` is for another machine or system than this one."""
    from tvm.target import codegen

    triple = host_triple(target)
    system = str(codegen.llvm_get_system_triple())
    other = machine_family(triple.partition("-")[0]) != machine_family(system.partition("-")[0])
    return bool(triple) and (other or "android" in triple)
