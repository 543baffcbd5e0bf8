"""Small artefacts for tests of runners: one that runs, and libraries that crash or hang when they are loaded."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path


def add_one(path: Path, shape: tuple[int, ...] = (2, 3), dtype: str = "float32") -> Path:
    """A library whose main returns its input plus one."""
    import tvm
    from tvm import relax

    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType(shape, dtype))
    with builder.function("main", [x]):
        with builder.dataflow():
            y = builder.emit_output(builder.emit(relax.op.add(x, relax.const(1, dtype))))
        builder.emit_func_output(relax.Tuple([y]))
    target = tvm.target.Target({"kind": "llvm"})
    with target:
        relax.build(builder.get(), target).export_library(str(path))
    return path


def library(path: Path, on_load: str) -> Path:
    """A shared library that is no artefact and runs the C statements `on_load` when it is loaded."""
    code = f"""
    #include <signal.h>
    #include <stdio.h>
    #include <unistd.h>
    __attribute__((constructor)) static void on_load(void) {{ {on_load} }}
    """
    subprocess.run(["gcc", "-shared", "-fPIC", "-xc", "-", "-o", str(path)], input=code.encode(), check=True)
    return path


def crashing(path: Path) -> Path:
    return library(path, "raise(SIGSEGV);")


def hanging(path: Path) -> Path:
    return library(path, "for (;;) pause();")


def crashing_once(path: Path, marker: Path) -> Path:
    """Crashes the first process that loads it, as memory spoiled by another artefact would; then is no artefact."""
    name = json.dumps(str(marker))
    return library(path, f'if (access({name}, F_OK)) {{ fclose(fopen({name}, "w")); raise(SIGSEGV); }}')
