"""The process that loads artefacts and times them, run as a script so that it never imports its parent's program.

Where the artefacts run is for a second file to say, which has `open_bench(arguments) -> Bench`. Neither imports torch:
with TVM's runtime and numpy alone a process takes 0.7 s and 90 MB to start, with torch 4 s and 390 MB.
"""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import json
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Protocol


def die_with_parent(parent: int) -> None:
    """Ask the kernel for SIGKILL when the parent ends, however it ends."""
    set_parent_death_signal = 1  # PR_SET_PDEATHSIG in linux/prctl.h
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(set_parent_death_signal, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before the request was in place
        os._exit(0)


class Loaded(Protocol):
    """An artefact where it will run."""

    def set_inputs(self, arrays: list[Any]) -> None: ...
    def set_random_inputs(self) -> None: ...
    def output(self) -> Any: ...
    def time_ms(self, calls: int, flush_mib: int) -> list[float]: ...


class Bench(Protocol):
    """Where artefacts run. An exception with an attribute `device_lost` says that it is gone, and how."""

    def settle(self, pinned: bool, niceness: int) -> tuple[int | None, tuple[int, ...]]: ...
    def load(self, path: str) -> Loaded: ...
    def facts(self) -> dict[str, Any]: ...


def serve(link: Connection, bench: Bench) -> None:
    """Answer requests until the other end closes: a list of artefacts to time is answered one by one."""
    loaded: dict[str, Loaded] = {}
    while True:
        request, *arguments = link.recv()
        if request == "settle":
            link.send(_answer(bench.settle, *arguments))
        elif request == "facts":
            link.send(_answer(bench.facts))
        elif request == "release":
            loaded.clear()
            gc.collect()  # machines and evaluators refer to each other: libraries go only with the last of them
            link.send(("ok", None))
        elif request == "run":
            link.send(_answer(_output, bench, *arguments))
        elif request == "time":
            paths, warmup, repeats, flush_mib = arguments
            for path in paths:
                link.send(_answer(_runs_ms, bench, loaded, path, (warmup, repeats, flush_mib)))
        else:
            raise ValueError(f"unknown request {request!r}")


def _runs_ms(bench: Bench, loaded: dict[str, Loaded], path: str, numbers: tuple[int, int, int]) -> list[float]:
    warmup, repeats, flush_mib = numbers
    if path not in loaded:
        fresh = bench.load(path)
        fresh.set_random_inputs()
        loaded[path] = fresh
    return loaded[path].time_ms(warmup + repeats, flush_mib)[warmup:]


def _output(bench: Bench, path: str, arrays: list[Any]) -> Any:
    fresh = bench.load(path)
    fresh.set_inputs(arrays)
    return fresh.output()


def _answer(call: Callable[..., Any], *arguments: Any) -> tuple[str, Any]:
    """("ok", value), ("failed", what went wrong with this artefact), or how the device was lost and what it said."""
    try:
        return "ok", call(*arguments)
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        lost = getattr(error, "device_lost", None)
        return (lost, lines[-1]) if lost else ("failed", f"{type(error).__name__}: {lines[-1]}")


def module_at(path: str) -> Any:
    """The module in a file, whatever package it belongs to."""
    name = "hwnas_" + os.path.basename(path).removesuffix(".py").strip("_")
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def main() -> None:
    """Usage: _timing.py PARENT_PID FILE_DESCRIPTOR BENCH_FILE ARGUMENTS_AS_JSON."""
    parent, descriptor = map(int, sys.argv[1:3])
    die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    sys.modules["torch"] = None  # type: ignore[assignment]  # tvm_ffi imports it where it can
    with Connection(descriptor) as link:
        kind, bench = _answer(lambda: module_at(sys.argv[3]).open_bench(json.loads(sys.argv[4])))
        link.send((kind, None if kind == "ok" else bench))
        if kind != "ok":
            return
        try:
            serve(link, bench)
        except (EOFError, BrokenPipeError):
            return


if __name__ == "__main__":
    main()
