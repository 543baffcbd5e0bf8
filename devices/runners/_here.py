"""This machine as the place where artefacts run: loaded by the timing process, by its path."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import sys
from typing import Any


def flush_denormals() -> None:
    """Let the processor treat denormal numbers as zero.

    Untrained weights shrink activations from layer to layer down to denormals, which cost up to a hundred times more
    a product; trained weights do not. Flushing makes one time of both.
    """
    words = {"x86_64": (7, 0x8040), "aarch64": (0, 1 << 24)}  # place in glibc's fenv_t: MXCSR and FPCR
    if sys.platform != "linux" or platform.machine() not in words:
        return
    place, bits = words[platform.machine()]
    libm = ctypes.CDLL("libm.so.6")
    environment = (ctypes.c_uint32 * 16)()
    libm.fegetenv(environment)
    environment[place] |= bits
    libm.fesetenv(environment)


def settle(pinned: bool, niceness: int) -> tuple[int, tuple[int, ...]]:
    """Pin to one core and take the priority asked for, as far as the system permits: (niceness, cores) granted."""
    if not hasattr(os, "sched_setaffinity"):
        return os.getpriority(os.PRIO_PROCESS, 0), ()
    with contextlib.suppress(PermissionError):  # what was granted is returned, and recorded
        os.setpriority(os.PRIO_PROCESS, 0, niceness)
    if pinned:
        # the last core: interrupts and start-up threads gather on the first
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    else:
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
    cores = tuple(sorted(os.sched_getaffinity(0))) if pinned else ()
    return os.getpriority(os.PRIO_PROCESS, 0), cores


class Here:
    """This machine with one runtime."""

    def __init__(self, runtime: Any, threads: int) -> None:
        self._runtime = runtime
        self._threads = threads

    def settle(self, pinned: bool, niceness: int) -> tuple[int, tuple[int, ...]]:
        """See `settle`."""
        return settle(pinned, niceness)

    def load(self, path: str) -> Any:
        """Load an artefact with the runtime."""
        return self._runtime.load(path, self._threads)

    def facts(self) -> dict[str, Any]:
        """Nothing: the parent runs on the same machine and reads for itself."""
        return {}


def open_bench(arguments: dict[str, Any]) -> Here:
    """`arguments`: "runtime", the path of the runtime's file, and "threads"."""
    flush_denormals()
    timing = sys.modules["__main__"]
    return Here(timing.module_at(arguments["runtime"]), arguments["threads"])
