"""What executes a compiled network on a device: one file a runtime, from a torch module to runs in ms.

A table made with one runtime says little about another, so the runtime and its version are part of a table's identity.
A file of this folder is a runtime where it has what `Runtime` asks for; another package names such a module under the
entry-point group "hwnas.devices.runtimes". The process that times artefacts loads the file by its path, without this
package and without torch: heavy packages are imported inside the functions that need them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from typing import Protocol as Role

from hwnas.devices.device import DeviceError
from hwnas.devices.plugins import load_plugin, plugin_names

if TYPE_CHECKING:  # torch is for who compiles, not for who only opens a device
    from torch import nn

    from hwnas.devices.compile.job import Settings


@dataclass(frozen=True, slots=True)
class Prepared:
    """A network made ready for a runtime: what its artefact would hold, and how to write it."""

    key: str  # 32 hex digits of everything that decides the artefact
    write: Callable[[Path], int | None]  # answers with the peak bytes of activations where the runtime plans them


class Loaded(Role):
    """An artefact in memory, ready to be called."""

    def set_inputs(self, arrays: list[Any]) -> None:
        """Inputs of the next calls."""
        ...

    def set_random_inputs(self) -> None:
        """Uniform in -1..1 from a fixed seed."""
        ...

    def output(self) -> Any:
        """First output of one call, as an array."""
        ...

    def time_ms(self, calls: int, flush_mib: int) -> list[float]:
        """Duration of each of `calls` calls; before each, `flush_mib` MiB are written over the caches (0: none)."""
        ...


class Runtime(Role):
    """The module of a runtime."""

    SUFFIX: str  # of an artefact's file, with its dot

    def version(self) -> str:
        """Name and version of what executes here, e.g. "tvm 0.27.0.post1"."""
        ...

    def compiler_versions(self, settings: Settings | None) -> str:
        """Versions of everything that turns a network into an artefact; `settings` may change them."""
        ...

    def prepare(self, model: nn.Module, inputs: tuple[tuple[int, ...], ...], settings: Settings) -> Prepared:
        """The artefact of `model` on float32 inputs of these shapes."""
        ...

    def load(self, path: str, threads: int) -> Loaded:
        """Load an artefact in the process that times it."""
        ...


def runtime_names() -> tuple[str, ...]:
    """Every runtime found, sorted."""
    return plugin_names(sys.modules[__name__])


def find_runtime(name: str) -> Runtime:
    """The runtime called `name`. Raises DeviceError that lists the known names."""
    try:
        found: Runtime = load_plugin(sys.modules[__name__], name)
    except LookupError as unknown:
        raise DeviceError(f"there is no such runtime: {unknown}") from None
    return found
