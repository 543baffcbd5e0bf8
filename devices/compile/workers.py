"""Bounded compiling processes: a hang or a crash costs one job and one process, never the batch."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import connection, get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Any

import cloudpickle  # type: ignore[import-untyped]  # ships no types

from hwnas.devices.compile.cache import is_whole, library_path
from hwnas.devices.compile.job import Artefact, CompileFailure, CompileJob, Settings
from hwnas.devices.compile.lowering import Schedule
from hwnas.devices.compile.target import as_target
from hwnas.devices.runtimes import find_runtime

_START_LIMIT_S = 300.0  # importing torch and TVM takes 4 s alone and a minute on a machine that swaps
_START_ATTEMPTS = 3


@dataclass(slots=True)
class _Worker:
    process: BaseProcess
    pipe: connection.Connection
    deadline: float
    job: int | None = None
    ready: bool = False


class Compiler:
    """Compiles networks for one target and runtime in bounded worker processes, through a cache of earlier artefacts.

    A context manager; leaving it kills the workers. A script that uses it needs the usual
    `if __name__ == "__main__":`, because workers are started by multiprocessing's fork server.

        with Compiler(host_target(), cache=Path("cache")) as compiler:
            for index, result in compiler.compile(jobs):
                ...
    """

    def __init__(
        self,
        target: str,
        *,
        cache: Path,
        workers: int | None = None,
        timeout_s: float = 120.0,
        schedule: Schedule = "cpu",
        runtime: str = "tvm",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if workers is not None and workers < 1:
            raise ValueError(f"workers={workers}: a compiler needs at least one")
        if timeout_s <= 0:
            raise ValueError(f"timeout_s={timeout_s}: a job needs some time")
        as_target(target)  # a target that TVM does not know fails here, not once a job
        self._target = target
        self._schedule = schedule
        self._runtime = runtime
        self._suffix = find_runtime(runtime).SUFFIX
        self._cache = cache.resolve()
        self._limit = workers or _cores()
        self._timeout_s = timeout_s
        self._clock = clock
        self._workers: list[_Worker] = []
        self._busy = False
        # a fork server that has imported torch and TVM once starts a worker in milliseconds
        self._context = get_context("forkserver")
        self._context.set_forkserver_preload(["hwnas.devices.compile.worker"])

    def library(self, key: str) -> Path | None:
        """The compiled library of an artefact's key, None where the cache has lost it."""
        path = library_path(self._cache, key, self._suffix)
        return path if is_whole(path, key) else None

    def versions(self) -> str:
        """Versions of everything that turns a network into an artefact, the compiler string of a Fingerprint."""
        return find_runtime(self._runtime).compiler_versions(self._settings(""))

    def _settings(self, versions: str) -> Settings:
        return Settings(self._target, self._cache, self._schedule, versions, self._runtime)

    def compile(self, jobs: Sequence[CompileJob]) -> Iterator[tuple[int, Artefact | CompileFailure]]:
        """Each job's index and what became of it, in the order of completion, every index once.

        One batch at a time: raises RuntimeError while another is under way.
        """
        if self._busy:
            raise RuntimeError("this compiler is busy with another batch: exhaust or close that iterator first")
        self._busy = True
        try:
            yield from self._run(jobs)
        finally:
            self._busy = False
            for worker in [w for w in self._workers if w.job is not None]:  # the batch was given up
                self._kill(worker)

    def close(self) -> None:
        """Kill every worker. Harmless when repeated."""
        for worker in list(self._workers):
            self._kill(worker)

    def __enter__(self) -> Compiler:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, jobs: Sequence[CompileJob]) -> Iterator[tuple[int, Artefact | CompileFailure]]:
        waiting = list(range(len(jobs)))[::-1]
        open_jobs = len(jobs)
        stillborn = 0
        while open_jobs:
            while len(self._workers) < min(self._limit, open_jobs):
                self._start()
            for worker in self._workers:
                while waiting and worker.ready and worker.job is None:
                    index = waiting.pop()
                    failure = self._send(worker, index, jobs[index])
                    if failure is not None:
                        open_jobs -= 1
                        yield index, failure
            for worker in self._awaken():
                index_or_none, answer = worker.job, self._receive(worker)
                if index_or_none is not None:
                    open_jobs -= 1
                    text = f"{jobs[index_or_none].label}: {answer}"
                    yield index_or_none, answer if isinstance(answer, Artefact) else CompileFailure(text)
                elif worker not in self._workers:
                    stillborn += 1
                    if stillborn == _START_ATTEMPTS:
                        raise RuntimeError(f"{stillborn} compiling processes did not start, the last: {answer}")
                else:
                    stillborn = 0

    def _start(self) -> None:
        ours, theirs = self._context.Pipe()
        settings = self._settings(self.versions())
        process = self._context.Process(target=_serve, args=(theirs, settings), daemon=True)
        process.start()
        theirs.close()
        self._workers.append(_Worker(process, ours, self._clock() + _START_LIMIT_S))

    def _send(self, worker: _Worker, index: int, job: CompileJob) -> CompileFailure | None:
        try:
            request = cloudpickle.dumps(job)
        except Exception as error:  # a recipe may hold anything; what cannot be sent is that job's failure
            return CompileFailure(f"{job.label}: not picklable: {type(error).__name__}: {error}")
        worker.job, worker.deadline = index, self._clock() + self._timeout_s
        with suppress(OSError):  # the worker has died since: seen at its sentinel, and the job fails with it
            worker.pipe.send_bytes(request)
        return None

    def _awaken(self) -> list[_Worker]:
        """Workers that have answered, died or run out of time; waits for the first."""
        watched: dict[Any, _Worker] = {}
        for worker in self._workers:
            if worker.job is not None or not worker.ready:
                watched[worker.pipe] = worker
        limit = min(w.deadline for w in watched.values()) - self._clock()
        ready = connection.wait(list(watched), timeout=max(0.0, limit))
        now = self._clock()
        return [w for pipe, w in watched.items() if pipe in ready or w.deadline <= now]

    def _receive(self, worker: _Worker) -> Artefact | str | None:
        """The worker's answer, or what ended it."""
        if not worker.pipe.poll():
            self._kill(worker)
            return f"timed out after {self._timeout_s:g} s" if worker.ready else f"no start in {_START_LIMIT_S:g} s"
        try:
            answer: Artefact | str | None = worker.pipe.recv()
        except (EOFError, OSError):
            worker.process.join()
            code = worker.process.exitcode or 0
            self._kill(worker)
            return f"compiler process {f'died with signal {-code}' if code < 0 else f'left with status {code}'}"
        worker.job, worker.ready = None, True
        return answer

    def _kill(self, worker: _Worker) -> None:
        if worker in self._workers:
            self._workers.remove(worker)
        pid = worker.process.pid
        if pid is not None and worker.process.is_alive():
            with suppress(OSError):  # its group, with the linker; a worker that has no group yet is killed below
                os.killpg(pid, signal.SIGKILL)
            worker.process.kill()
            worker.process.join()
        worker.pipe.close()


def _serve(pipe: connection.Connection, settings: Settings) -> None:
    from hwnas.devices.compile.worker import serve  # torch and TVM: imported in the worker, not in the caller

    serve(pipe, settings)


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return os.cpu_count() or 1
