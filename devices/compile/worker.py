"""The compiling process: takes jobs from a pipe until it is closed."""

from __future__ import annotations

import ctypes
import os
import random
import resource
import signal
import sys
import threading
import time
import warnings
from multiprocessing import connection, parent_process
from typing import Any

import cloudpickle  # type: ignore[import-untyped]  # ships no types
import numpy as np
import torch

# Imported for the process that workers are forked from: each of them starts with these in place.
import torch._dynamo
import torch.export
import torch.fx.experimental.optimization
import torch.hub
import tvm.relax.backend.cpu_generic.pipeline
import tvm.relax.frontend.torch  # noqa: F401  see above

from hwnas.devices.compile import cache
from hwnas.devices.compile.job import Artefact, CompileJob, Settings
from hwnas.devices.runtimes import find_runtime

_PR_SET_PDEATHSIG = 1


def serve(pipe: connection.Connection, settings: Settings) -> None:
    """Answer every pickled job on `pipe` with an Artefact or the text of what failed, until the pipe closes."""
    _die_with_parent()
    os.setpgid(0, 0)  # the linker it starts is killed with it, and Ctrl-C is the parent's to hear
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    os.environ["TVM_NUM_THREADS"] = "1"
    # torch's progress bars would lock each other out between processes, by a semaphore that a killed worker leaves
    bar: Any = vars(torch.hub)["tqdm"]
    if hasattr(bar, "set_lock"):  # tqdm's, not torch's own where that is not installed
        bar.set_lock(threading.RLock())
    pipe.send(None)  # ready
    while True:
        try:
            request = pipe.recv_bytes()
        except EOFError:
            return
        try:
            answer: Artefact | str = compile_one(cloudpickle.loads(request), settings)
        except Exception as error:  # whatever a job raises is its answer
            answer = f"{type(error).__name__}: {error}"
        pipe.send(answer)


def compile_one(job: CompileJob, settings: Settings) -> Artefact:
    """Build the job's network and the library of it, unless the cache holds that library already."""
    start = _cpu_seconds()
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    runtime = find_runtime(settings.runtime)
    prepared = runtime.prepare(job.make(), job.inputs, settings)
    path = cache.library_path(settings.cache, prepared.key, runtime.SUFFIX)
    cached = cache.is_whole(path, prepared.key)
    if not cached:
        cache.store(settings.cache, cache.Manifest(prepared.key, job.inputs), prepared.write, runtime.SUFFIX)
    return Artefact(path, prepared.key, _cpu_seconds() - start, cached)


def _cpu_seconds() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _die_with_parent() -> None:
    """Leave no process behind when the parent is killed outright: the end of its pipe is only seen between jobs."""
    if sys.platform == "linux":
        # the kernel's signal reaches a worker that hangs inside compiled code, where no Python thread runs
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = parent_process()
    if parent is None:
        return

    def watch(sentinel: int) -> None:
        connection.wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, args=(parent.sentinel,), daemon=True).start()
