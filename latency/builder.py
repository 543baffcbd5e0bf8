"""Fills a latency table: compiles what is missing, times it on the device, commits, and continues after a kill."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Protocol as Role

from hwnas.devices import DeviceError, Measurement, Protocol, Runner
from hwnas.devices.compile import Artefact, CompileFailure, CompileJob
from hwnas.latency.block import Block
from hwnas.latency.farm import Farm
from hwnas.latency.table import LatencyTable
from hwnas.latency.visits import Visited, Visitor
from hwnas.latency.work import Made, Network, Work, all_work, in_order, untried

# CPU-seconds to compile a block before this table knows its own: 1.4 to 1.7 for MBConv blocks on a quiet machine
_COMPILE_CPU_S = 1.6
# Every block of a usual space, so that one visit to the machine that also compiles times all of them
CHUNK = 500
# What a board holds in memory at once, and what is done again when it dies
BOARD_CHUNK = 16


class JobCompiler(Role):
    """What a build needs of `hwnas.devices.compile.Compiler`."""

    def compile(self, jobs: Sequence[CompileJob]) -> Iterator[tuple[int, Artefact | CompileFailure]]:
        """(index of the job, what came of it), as they finish."""
        ...

    def library(self, key: str) -> Path | None:
        """The file of an artefact's key, None where it is lost."""
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
    """A visit is in the table: `done` of `total` in this build so far."""

    done: int
    total: int
    failed: int
    per_minute: float
    seconds_left: float
    speed: float | None = None  # time that the anchors took in this visit, over what they took in the first


Event = Compiled | Committed


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What a build did. `added` is less than `tried` where another builder was faster."""

    present: int  # before it began
    tried: int
    failed: int
    added: int
    seconds: float
    left: int = 0  # not tried, because the time was up
    gone: tuple[str, ...] = ()  # why boards that did not come back were left out
    busy_s: Mapping[str, float] = field(default_factory=dict)  # by board: with a batch in hand, not waiting for one


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
    runner: Runner | Sequence[Runner],
    protocol: Protocol,
    weights: Mapping[Block, float] | None = None,
    chunk: int | None = None,
    budget_minutes: float | None = None,
    on_event: Callable[[Event], None] = _ignore,
    clock: Callable[[], float] = perf_counter,
) -> BuildReport:
    """Compile and time the blocks that the table lacks, and networks to fit and check a correction; a visit a commit.

    `runner` is one device or several equal boards. Where compiling would disturb the device (it shares this machine),
    a chunk is compiled, then timed; otherwise this machine compiles while the boards measure, and a board that is
    busy, dies or hangs gives its work back to the others. What one visit times is interleaved; every visit after the
    table's first times some of the first one's artefacts again, and their change is divided out.

    `weights` says how much of the space's error a block stands for, e.g. its share of random subnets times its MACs:
    the heaviest come first, so that a build cut short by `budget_minutes` leaves the least of it.
    A block that does not compile or run becomes a row with its error. After a kill, call it again: what was committed
    stays, what was compiled is found in the compiler's cache.
    Raises LookupError for a block whose factory is not installed, ValueError for a network in both roles (what fitted a
    correction cannot check it), DeviceError for another device than the table's, all before anything is compiled;
    DeviceError where the last board is gone, and BuildError where nothing works at all.
    """
    runners = list(runner) if isinstance(runner, Sequence) else [runner]
    together = any(getattr(each, "shares_host", False) for each in runners)
    if together and len(runners) > 1:
        raise ValueError(f"{len(runners)} devices of which one is this machine would disturb each other: give one")
    size = chunk if chunk is not None else CHUNK if together else BOARD_CHUNK
    if size < 1 or not runners:
        raise ValueError(f"a chunk of {size} on {len(runners)} device(s) measures nothing: give 1 or more of each")
    if budget_minutes is not None and not budget_minutes > 0:
        raise ValueError(f"a budget of {budget_minutes:g} minutes measures nothing: give more than 0")
    asked = all_work(table, in_order(blocks, weights or {}), fit, check)
    _check_runners(table, runners, protocol)
    todo = untried(table, asked)
    began = clock()
    progress = _Progress(len(todo), began, on_event, clock)
    farm = Farm(
        Visitor(table, compiler.library, protocol),
        runners,
        chunk=size,
        on_compiled=progress.compiled,
        on_visited=progress.visited,
        clock=clock,
        deadline=None if budget_minutes is None else began + 60 * budget_minutes,
    )
    if together:
        _take_turns(farm, compiler, todo)
    elif todo:
        farm.run(todo, compiler.compile([work.job for work in todo]))
    left = len(untried(table, todo))
    return BuildReport(
        present=len(asked) - len(todo),
        tried=progress.done,
        failed=progress.failed,
        added=progress.added,
        seconds=clock() - began,
        left=left,
        gone=tuple(map(str, farm.gone)),
        busy_s=farm.busy_s,
    )


def _check_runners(table: LatencyTable, runners: Sequence[Runner], protocol: Protocol) -> None:
    """Raises DeviceError for a runner of another device, and where none answers; a board may answer later."""
    silent = []
    for runner in runners:
        try:
            found = runner.fingerprint()
        except DeviceError as error:
            silent.append(error)
            continue
        table.check_same_device(found, protocol)
    if len(silent) == len(runners):
        raise silent[0]


def _take_turns(farm: Farm, compiler: JobCompiler, todo: Sequence[Work]) -> None:
    """Compile a chunk, then time it: on one machine the two would disturb each other."""
    for start in range(0, len(todo), farm.chunk):
        if farm.deadline is not None and farm.clock() >= farm.deadline:
            return
        # a second builder of the same table may have been here
        works = untried(farm.visitor.table, todo[start : start + farm.chunk])
        compiled = list(compiler.compile([work.job for work in works]))
        farm.run_here(works, sorted(compiled, key=lambda pair: pair[0]))


@dataclass
class _Progress:
    """Turns what happens into events and sums."""

    total: int
    began: float
    on_event: Callable[[Event], None]
    clock: Callable[[], float]
    done: int = 0
    failed: int = 0
    added: int = 0

    def compiled(self, made: Made) -> None:
        error = str(made.result) if isinstance(made.result, CompileFailure) else None
        self.on_event(Compiled(made.work.label, error))

    def visited(self, visited: Visited) -> None:
        self.done += len(visited.rows)
        self.failed += visited.failed
        self.added += visited.added
        seconds = max(self.clock() - self.began, 1e-9)
        left = seconds * (self.total - self.done) / self.done
        speed = visited.speed
        self.on_event(Committed(self.done, self.total, self.failed, 60 * self.done / seconds, left, speed))
