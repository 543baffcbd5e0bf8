"""Kernels of machines that TVM has no runtime wheel for: each is called by a small C program under qemu-user."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tvm_ffi.libinfo
from numpy.typing import NDArray

from hwnas.devices.compile.linker import gnu_triple
from hwnas.devices.compile.target import host_triple

Floats = NDArray[np.float32]

_SOURCE = Path(__file__).with_name("kernel.c")
_EMULATORS = {"aarch64": "qemu-aarch64-static", "arm": "qemu-arm-static", "riscv64": "qemu-riscv64-static"}


@dataclass(frozen=True, slots=True)
class BareBoard:
    """A machine under qemu-user with a C library and nothing else."""

    caller: Path
    emulator: tuple[str, ...]

    def call(self, library: Path, kernel: str, arguments: list[Floats], folder: Path) -> Floats:
        """What `kernel` leaves in the last of its arguments, whose numbers going in are arbitrary."""
        files = [folder / f"{index}.bin" for index, _ in enumerate(arguments)]
        for file, array in zip(files, arguments, strict=True):
            header = np.int32(array.ndim).tobytes() + np.asarray(array.shape, np.int64).tobytes()
            file.write_bytes(header + array.astype(np.float32).tobytes())
        command = [*self.emulator, str(self.caller), str(library), f"__tvm_ffi_{kernel}", *map(str, files)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, f"{kernel}: {done.returncode} {done.stderr}"
        return np.fromfile(files[-1], np.float32).reshape(arguments[-1].shape)


def bare_board(target: str, folder: Path, *, cpu: str | None = None) -> BareBoard:
    """The machine of `target`, with `cpu` for its processor; skips where its compiler or its emulator is missing."""
    triple = gnu_triple(host_triple(target))
    emulator, compiler = _EMULATORS[triple.partition("-")[0]], f"{triple}-gcc"
    for program, package in ((emulator, "qemu-user-static"), (compiler, f"gcc-{triple}")):
        if shutil.which(program) is None:
            pytest.skip(f"no {program} on this machine: apt-get install {package}")
    caller = folder / "kernel"
    includes = [f"-I{path}" for path in tvm_ffi.libinfo.include_paths()]
    # -rdynamic: the library finds the program's stand-in for the one function of the runtime that it names
    subprocess.run([compiler, "-O1", "-rdynamic", *includes, str(_SOURCE), "-o", str(caller), "-ldl"], check=True)
    return BareBoard(caller, (emulator, *(("-cpu", cpu) if cpu else ()), "-L", f"/usr/{triple}"))
