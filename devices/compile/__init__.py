"""From a torch module to a shared library for one device: schedule, cache and compiling processes."""

from hwnas.devices.compile.cache import Manifest, input_shapes, read_manifest
from hwnas.devices.compile.job import Artefact, CompileFailure, CompileJob
from hwnas.devices.compile.lowering import Lowered, generate, import_torch, link, lower
from hwnas.devices.compile.target import host_target, vector_lanes, vector_registers
from hwnas.devices.compile.workers import Compiler

__all__ = [
    "Artefact",
    "CompileFailure",
    "CompileJob",
    "Compiler",
    "Lowered",
    "Manifest",
    "generate",
    "host_target",
    "import_torch",
    "input_shapes",
    "link",
    "lower",
    "read_manifest",
    "vector_lanes",
    "vector_registers",
]
