"""What is asked of a compiling process and what it answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from hwnas.devices.compile.cache import Shapes
from hwnas.devices.compile.lowering import Schedule


@dataclass(frozen=True, slots=True)
class CompileJob:
    """A network to compile: a picklable call that builds it and the shapes of its float32 inputs, batch included.

    The random seed is fixed before `make` is called, so that a factory which draws its initial weights
    builds the same network every time and finds it in the cache.
    """

    make: Callable[[], nn.Module]
    inputs: Shapes
    label: str  # for messages


@dataclass(frozen=True, slots=True)
class Artefact:
    """A compiled network: its file in the cache and the CPU-seconds this job took, linker included."""

    path: Path
    key: str
    cpu_seconds: float
    cached: bool


class CompileFailure(RuntimeError):  # noqa: N818  a result, named as one
    """A network that did not compile: a result that is kept, not a reason to stop. The message says what failed."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What all jobs of a compiler share."""

    target: str
    cache: Path
    schedule: Schedule
    versions: str
    runtime: str = "tvm"
