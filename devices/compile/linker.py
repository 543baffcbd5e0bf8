"""Which compiler links a library for a target, and what to install where it is not here."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from typing import Any

from hwnas.devices.compile.elf import machine_family
from hwnas.devices.compile.target import host_triple, is_cross

NDK_VARIABLE = "TVM_NDK_CC"


def linker(target: str) -> dict[str, str | Callable[..., Any]]:
    """Keyword arguments of TVM's `export_library` for a target (JSON text).

    Raises FileNotFoundError that says what to install, or which variable names the compiler, where there is none;
    ValueError for a machine that has no shared libraries.
    """
    triple = host_triple(target)
    if not is_cross(target):
        return {}
    if "android" in triple:
        return {"fcompile": _android(triple)}
    if "linux" not in triple:
        raise ValueError(f"no library is linked for {triple}: no shared libraries there")
    compiler = f"{gnu_triple(triple)}-g++"
    if shutil.which(compiler) is None:
        package = f"g++-{gnu_triple(triple)}".replace("_", "-")
        raise FileNotFoundError(f"no {compiler} on this machine, the linker for {triple}: apt-get install {package}")
    return {"cc": compiler}


def gnu_triple(triple: str) -> str:
    """What Debian's cross compilers call an LLVM triple: "armv7a-unknown-linux-gnueabihf" is arm-linux-gnueabihf."""
    machine, *rest = triple.split("-")
    family = machine_family(machine)
    name = {"thumb": "arm", "riscv": machine[: len("riscv64")]}.get(family, family)
    system = "-".join(rest[rest.index("linux") :]) if "linux" in rest else "-".join(rest)
    return f"{name}-{system}"


def _android(triple: str) -> Callable[..., Any]:
    compiler = os.environ.get(NDK_VARIABLE, "")
    if not compiler or shutil.which(compiler) is None:
        found = f"{compiler!r} is no program" if compiler else "it is not set"
        raise FileNotFoundError(
            f"{triple} is linked by the clang++ that {NDK_VARIABLE} names, and {found}: install the NDK and set "
            f"it to its .../bin/{triple.partition('-')[0]}-linux-android29-clang++"
        )
    from tvm.support import ndk

    create_shared: Callable[..., Any] = ndk.create_shared
    return create_shared
