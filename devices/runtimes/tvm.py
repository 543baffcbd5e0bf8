"""TVM: networks compiled ahead of time into shared libraries. The default runtime."""

from __future__ import annotations

import os
import re
from importlib.metadata import version as _version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the process that times artefacts loads this file alone
    from torch import nn

    from hwnas.devices.compile.job import Settings
    from hwnas.devices.runtimes import Prepared

SUFFIX = ".so"

# The VM checks its arguments against these constants when it is called, so they are the truth about an artefact.
_PARAMETER = re.compile(r'ErrorContext\(fn=main, loc=param\[(\d+)\].*?R\.Tensor\(\(([^)]*)\), dtype="(\w+)"\)')


def version() -> str:
    """TVM's runtime of this machine."""
    return f"tvm {_version('apache-tvm')}"


def compiler_versions(settings: Settings | None) -> str:
    """TVM, its FFI, torch and the schedule."""
    from hwnas.devices.compile.lowering import SCHEDULE_VERSION

    packages = ", ".join(f"{name} {_version(name)}" for name in ("apache-tvm", "apache-tvm-ffi", "torch"))
    plain = settings is not None and settings.schedule != "cpu"
    return f"{packages}, {'no schedule' if plain else f'schedule {SCHEDULE_VERSION}'}"


def prepare(model: nn.Module, inputs: tuple[tuple[int, ...], ...], settings: Settings) -> Prepared:
    """Import `model` into relax; its library is scheduled, generated and linked when it is written."""
    from hwnas.devices.compile.lowering import content_key, import_torch, link, lower
    from hwnas.devices.compile.memory import activation_bytes
    from hwnas.devices.runtimes import Prepared

    module = import_torch(model, inputs)
    key = content_key(module, settings.target, settings.versions)

    def write(path: Path) -> int:
        lowered = lower(module, settings.target, schedule=settings.schedule)
        link(lowered, settings.target, path)
        return activation_bytes(lowered.module, settings.target)

    return Prepared(key, write)


def load(path: str, threads: int) -> Loaded:  # noqa: ARG001  # TVM_NUM_THREADS is set before the process begins
    """Load a library."""
    import tvm
    import tvm_ffi

    # tvm.runtime.load_module would keep the library for the life of the process
    return Loaded(tvm_ffi.load_module(os.path.realpath(path), keep_module_alive=False), tvm.cpu())


class Loaded:
    """A library in memory, here or on a board, with its virtual machine on one of the devices there."""

    def __init__(self, module: Any, device: Any) -> None:
        from tvm.runtime.vm import VirtualMachine

        self._module = module
        found = _PARAMETER.findall(self._module["stats"]())
        self._parameters = {
            int(index): ([int(n) for n in shape.split(",") if n.strip()], dtype) for index, shape, dtype in found
        }
        self._device = device
        self._vm = VirtualMachine(self._module, self._device)
        self._evaluators: dict[tuple[int, int], Any] = {}

    def set_inputs(self, arrays: list[Any]) -> None:
        """Inputs of the next calls. Raises ValueError where their number is wrong."""
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

    def time_ms(self, calls: int, flush_mib: int = 0) -> list[float]:
        """TVM's own clock, one call a repeat; the cache is flushed by copying `flush_mib` MiB before each."""
        if (calls, flush_mib) not in self._evaluators:
            # the virtual machine's own time_evaluator cannot flush
            self._evaluators[calls, flush_mib] = self._vm.module.time_evaluator(
                "invoke_stateful", self._device, number=1, repeat=calls, cache_flush_bytes=flush_mib << 20
            )
        return [1000 * seconds for seconds in self._evaluators[calls, flush_mib]("main").results]
