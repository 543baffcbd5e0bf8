"""The process that loads artefacts and times them, run as a script so that it never imports its parent's program.

It knows TVM's runtime and numpy alone: 0.7 s and 90 MB to start, where torch would make it 4 s and 390 MB.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import platform
import re
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

# The VM checks its arguments against these constants when it is called, so they are the truth about an artefact.
_PARAMETER = re.compile(r'ErrorContext\(fn=main, loc=param\[(\d+)\].*?R\.Tensor\(\(([^)]*)\), dtype="(\w+)"\)')


def die_with_parent(parent: int) -> None:
    """Ask the kernel for SIGKILL when the parent ends, however it ends."""
    set_parent_death_signal = 1  # PR_SET_PDEATHSIG in linux/prctl.h
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(set_parent_death_signal, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before the request was in place
        os._exit(0)


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


class Loaded:
    """An artefact in memory, ready to be called."""

    def __init__(self, path: str) -> None:
        import tvm
        import tvm_ffi
        from tvm.runtime.vm import VirtualMachine

        # tvm.runtime.load_module would keep the library for the life of the process
        self._module: Any = tvm_ffi.load_module(os.path.realpath(path), keep_module_alive=False)
        found = _PARAMETER.findall(self._module["stats"]())
        self._parameters = {
            int(index): ([int(n) for n in shape.split(",") if n.strip()], dtype) for index, shape, dtype in found
        }
        self._device = tvm.cpu()
        self._vm = VirtualMachine(self._module, self._device)
        self._evaluators: dict[int, Any] = {}

    def set_inputs(self, arrays: list[Any]) -> None:
        import numpy as np
        import tvm

        if len(arrays) != len(self._parameters):
            raise ValueError(f"the artefact takes {len(self._parameters)} inputs, not {len(arrays)}")
        typed = [np.ascontiguousarray(a, dtype=self._parameters[i][1]) for i, a in enumerate(arrays)]
        self._vm.set_input("main", *(tvm.runtime.tensor(array, self._device) for array in typed))

    def set_random_inputs(self) -> None:
        """Uniform in -1..1 from a fixed seed; whole numbers are 0 or 1, which any vocabulary has."""
        import numpy as np

        rng = np.random.default_rng(0)
        arrays = []
        for _, (shape, dtype) in sorted(self._parameters.items()):
            whole = np.issubdtype(np.dtype(dtype), np.integer) or dtype == "bool"
            arrays.append(rng.integers(0, 2, shape) if whole else rng.uniform(-1, 1, shape))
        self.set_inputs(arrays)

    def output(self) -> Any:
        """First output as an array."""
        self._vm.invoke_stateful("main")
        value = self._vm.get_outputs("main")
        while isinstance(value, tuple):
            value = value[0]
        return value.numpy()

    def time_ms(self, calls: int) -> list[float]:
        if calls not in self._evaluators:
            self._evaluators[calls] = self._vm.time_evaluator("invoke_stateful", self._device, number=1, repeat=calls)
        return [1000 * seconds for seconds in self._evaluators[calls]("main").results]


def serve(link: Connection) -> None:
    """Answer requests until the other end closes: a list of artefacts to time is answered one by one."""
    loaded: dict[str, Loaded] = {}
    while True:
        request, *arguments = link.recv()
        if request == "settle":
            link.send(settle(*arguments))
        elif request == "release":
            loaded.clear()
            gc.collect()  # machines and evaluators refer to each other: libraries go only with the last of them
            link.send(None)
        elif request == "run":
            link.send(_answer(_output, *arguments))
        elif request == "time":
            paths, warmup, repeats = arguments
            for path in paths:
                link.send(_answer(_runs_ms, loaded, path, warmup, repeats))
        else:
            raise ValueError(f"unknown request {request!r}")


def _runs_ms(loaded: dict[str, Loaded], path: str, warmup: int, repeats: int) -> list[float]:
    if path not in loaded:
        fresh = Loaded(path)
        fresh.set_random_inputs()
        loaded[path] = fresh
    return loaded[path].time_ms(warmup + repeats)[warmup:]


def _output(path: str, arrays: list[Any]) -> Any:
    fresh = Loaded(path)
    fresh.set_inputs(arrays)
    return fresh.output()


def _answer(call: Callable[..., Any], *arguments: Any) -> tuple[bool, Any]:
    """(True, value), or (False, what went wrong): whatever an artefact raises is an answer about that artefact."""
    try:
        return True, call(*arguments)
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        return False, f"{type(error).__name__}: {lines[-1]}"


def main() -> None:
    """Usage: _timing.py PARENT_PID FILE_DESCRIPTOR."""
    parent, descriptor = map(int, sys.argv[1:3])
    die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    sys.modules["torch"] = None  # type: ignore[assignment]  # tvm_ffi imports it where it can
    import tvm  # noqa: F401

    flush_denormals()
    with Connection(descriptor) as link:
        link.send("ready")
        try:
            serve(link)
        except (EOFError, BrokenPipeError):
            return


if __name__ == "__main__":
    main()
