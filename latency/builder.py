"""Fills a latency table: compiles what is missing, times it on the device, commits, and continues after a kill."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Protocol as Role

from torch import nn

from hwnas.devices import Measurement, Protocol, RunFailure, Runner
from hwnas.devices.compile import Artefact, CompileFailure, CompileJob
from hwnas.latency.block import Block
from hwnas.latency.rows import BlockRow, Evidence, NetworkRole, NetworkRow, network_key
from hwnas.latency.table import LatencyTable

# CPU-seconds to compile a block before this table knows its own: 1.4 to 1.7 for MBConv blocks on a quiet machine
_COMPILE_CPU_S = 1.6
# Every block of a usual space, so that one visit to the device times all of them
CHUNK = 500


# So many first failures in a row tell of the tools, not of the blocks.
_HOPELESS = 4


class BuildError(RuntimeError):
    """A build in which nothing compiles or runs: its failures are not worth keeping."""


class JobCompiler(Role):
    """What a build needs of `hwnas.devices.compile.Compiler`."""

    def compile(self, jobs: Sequence[CompileJob]) -> Iterator[tuple[int, Artefact | CompileFailure]]:
        """(index of the job, what came of it), as they finish."""
        ...


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much of what a search needs a table holds, and about how long the rest takes."""

    total: int
    present: int  # measured
    failed: int  # tried in vain
    missing: tuple[Block, ...]
    estimated_minutes: float


@dataclass(frozen=True, slots=True)
class Compiled:
    """One network of the chunk at hand has been compiled, or has failed to."""

    label: str
    error: str | None


@dataclass(frozen=True, slots=True)
class Committed:
    """A chunk is in the table: `done` of `total` in this build so far."""

    done: int
    total: int
    failed: int
    per_minute: float
    seconds_left: float


Event = Compiled | Committed


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What a build did. `added` is less than `tried` where another builder was faster."""

    present: int  # before it began
    tried: int
    failed: int
    added: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Network:
    """A whole network to measure end to end: how to build it (picklable), its inputs, and the blocks it is made of."""

    label: str
    make: Callable[[], nn.Module]
    inputs: tuple[tuple[int, ...], ...]
    blocks: tuple[Block, ...]


def _ignore(_event: Event) -> None: ...


def coverage(table: LatencyTable, blocks: Iterable[Block], *, workers: int = 1) -> Coverage:
    """What of `blocks` the table holds; the time estimate takes the table's own compile times where it has some."""
    asked = list(dict.fromkeys(blocks))
    missing = tuple(table.missing(asked))
    failures = table.failures()
    failed = sum(block in failures for block in asked)
    rows = table.block_rows()
    compile_s = [row.evidence.compile_cpu_s for row in rows if row.evidence.compile_cpu_s is not None]
    mean_compile_s = sum(compile_s) / len(compile_s) if compile_s else _COMPILE_CPU_S
    timed_s = [sum(row.evidence.result.runs_ms) / 1000 for row in rows if isinstance(row.evidence.result, Measurement)]
    mean_timed_s = sum(timed_s) / len(timed_s) if timed_s else 0.0
    minutes = len(missing) * (mean_compile_s / workers + mean_timed_s) / 60
    return Coverage(len(asked), len(asked) - len(missing) - failed, failed, missing, minutes)


def build(
    table: LatencyTable,
    blocks: Iterable[Block],
    *,
    fit: Iterable[Network] = (),
    check: Iterable[Network] = (),
    compiler: JobCompiler,
    runner: Runner,
    protocol: Protocol,
    chunk: int = CHUNK,
    on_event: Callable[[Event], None] = _ignore,
    clock: Callable[[], float] = perf_counter,
) -> BuildReport:
    """Compile and time the blocks that the table lacks, and networks to fit and check a correction; a chunk a commit.

    What one chunk holds is timed in one interleaved visit: blocks and networks measured minutes apart on a machine
    with other work on it do not add up. A block that does not compile or run becomes a row with its error. After a
    kill, call it again: what was committed stays, what was compiled is found in the compiler's cache. Nothing is
    timed while compiling processes are busy.
    Raises LookupError for a block whose factory is not installed and ValueError for a network that the table holds
    in the other role (what fitted a correction cannot check it), both before anything is compiled, and BuildError
    where nothing works at all.
    """
    todo = [_Work.of_block(block) for block in dict.fromkeys(blocks)]
    todo += _network_works(table, fit, "fit") + _network_works(table, check, "check")
    return _build(table, todo, _Bench(compiler, runner, protocol, on_event, clock), chunk=chunk)


def _network_works(table: LatencyTable, networks: Iterable[Network], role: NetworkRole) -> list[_Work]:
    todo = list({network_key(n.blocks): _Work.of_network(n, role) for n in networks}.values())
    other = {row.key: row.role for row in table.networks() if row.role != role}
    for work in todo:
        if work.key in other:
            raise ValueError(
                f"{work.label} is in the table as a {other[work.key]!r} network and cannot be {role!r} too: "
                "choose other networks, what fitted a correction cannot check it"
            )
    return todo


@dataclass(frozen=True, slots=True)
class _Work:
    """Something to compile and time, and the row that it becomes."""

    key: str
    label: str
    job: CompileJob
    row: Callable[[Evidence], BlockRow | NetworkRow]

    @classmethod
    def of_block(cls, block: Block) -> _Work:
        job = CompileJob(block.recipe(), block.inputs, str(block))
        return cls(block.key, str(block), job, lambda evidence: BlockRow(block, evidence))

    @classmethod
    def of_network(cls, network: Network, role: NetworkRole) -> _Work:
        job = CompileJob(network.make, network.inputs, network.label)
        label, blocks = network.label, network.blocks
        return cls(network_key(blocks), label, job, lambda evidence: NetworkRow(label, role, blocks, evidence))


@dataclass(frozen=True, slots=True)
class _Bench:
    """What turns work into rows."""

    compiler: JobCompiler
    runner: Runner
    protocol: Protocol
    on_event: Callable[[Event], None]
    clock: Callable[[], float]

    def rows(self, works: Sequence[_Work]) -> list[BlockRow | NetworkRow]:
        """Compile all of `works`, then time all that compiled: one row each."""
        compiled: dict[int, Artefact | CompileFailure] = {}
        for index, result in self.compiler.compile([work.job for work in works]):
            compiled[index] = result
            self.on_event(Compiled(works[index].label, str(result) if isinstance(result, CompileFailure) else None))
        paths = {index: result.path for index, result in sorted(compiled.items()) if isinstance(result, Artefact)}
        answers = self.runner.time(list(paths.values()), self.protocol) if paths else []
        timed = dict(zip(paths, answers, strict=True))
        return [work.row(_evidence(compiled[index], timed.get(index))) for index, work in enumerate(works)]


def _build(table: LatencyTable, asked: Sequence[_Work], bench: _Bench, *, chunk: int) -> BuildReport:
    if chunk < 1:
        raise ValueError(f"a chunk of {chunk} holds nothing: give 1 or more")
    table.check_same_device(bench.runner.fingerprint(), bench.protocol)
    began = bench.clock()
    todo = _untried(table, asked)
    done = failed = added = 0
    for start in range(0, len(todo), chunk):
        # a second builder of the same table may have been here
        rows = bench.rows(_untried(table, todo[start : start + chunk]))
        errors = [row.evidence.result for row in rows if isinstance(row.evidence.result, str)]
        if len(errors) == len(rows) >= _HOPELESS and not table.latencies_ms():
            raise BuildError(
                f"all of the first {len(rows)} failed, nothing was kept; the first {errors[0]}: check the compiler "
                f"and the device {table.device.name!r} with one block before the next build"
            )
        added += table.add(rows, fingerprint=bench.runner.fingerprint(), protocol=bench.protocol)
        done = min(start + chunk, len(todo))
        failed += len(errors)
        seconds = max(bench.clock() - began, 1e-9)
        bench.on_event(Committed(done, len(todo), failed, 60 * done / seconds, seconds * (len(todo) - done) / done))
    return BuildReport(len(asked) - len(todo), done, failed, added, bench.clock() - began)


def _untried(table: LatencyTable, works: Sequence[_Work]) -> list[_Work]:
    present = table.keys()
    return [work for work in works if work.key not in present]


def _evidence(compiled: Artefact | CompileFailure, timed: Measurement | RunFailure | None) -> Evidence:
    if isinstance(compiled, CompileFailure):
        return Evidence(f"did not compile: {compiled}")
    compile_cpu_s = None if compiled.cached else compiled.cpu_seconds
    result = f"did not run: {timed}" if isinstance(timed, RunFailure) else timed
    if result is None:
        raise ValueError(f"the runner left out {compiled.path.name}: every artefact gets runs or a RunFailure")
    return Evidence(result, compiled.key, compile_cpu_s)
