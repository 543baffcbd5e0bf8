"""The device side of a run: an open device with its compiler, the latency table, and latency as a cost."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from math import inf
from pathlib import Path

import numpy as np
from torch import nn

from hwnas.devices import Device, DeviceError, Fingerprint, Measurement, Protocol, RunFailure, Runner
from hwnas.devices.compile import Compiler
from hwnas.devices.registry import Registry, registry_path
from hwnas.devices.runners import board_count, open_runner
from hwnas.engine import architecture as arch
from hwnas.engine.architecture import Architecture, FloatArray, SearchSpace
from hwnas.engine.device_costs import Latency as Latency  # noqa: PLC0414  # who opens a table asks next
from hwnas.engine.device_costs import measured_networks, steady_percentile_ms
from hwnas.engine.evaluation.complexity import block_macs
from hwnas.engine.run import Run
from hwnas.latency import (
    Block,
    BuildReport,
    Coverage,
    LatencyTable,
    Network,
    PredictionQuality,
    build,
    coverage,
    split_noise_floor,
)
from hwnas.latency.builder import Event


@dataclass(frozen=True)
class Bench:
    """A device that is open, and what compiles for it."""

    device: Device
    runner: Runner
    compiler: Compiler
    fingerprint: Fingerprint
    protocol: Protocol
    boards: int = 1  # equal boards that answer for the device

    @contextmanager
    def every_board(self) -> Iterator[list[Runner]]:
        """A runner a board, the bench's own first; boards that others are using are left to them."""
        with ExitStack() as stack:
            runners = [self.runner]
            while len(runners) < self.boards:
                try:
                    runners.append(open_runner(self.device, compiler=self.compiler.versions()))
                except DeviceError:
                    break
                stack.callback(runners[-1].close)
            yield runners


def find_device(name: str) -> Device:
    """The device called `name`, of those that every machine has or that the person named. Raises DeviceError."""
    return Registry(registry_path()).find(name)


@contextmanager
def open_bench(run: Run, name: str | None = None) -> Iterator[Bench]:
    """The run's device called `name`, its first if none is named, open; given back at the end. Raises DeviceError."""
    section = run.config.device
    device = find_device(name or section.name)
    compiler = Compiler(
        device.target,
        cache=run.config.run.cache,
        workers=section.workers,
        timeout_s=section.compile_timeout_s,
        runtime=device.runtime,
    )
    with compiler:
        runner = open_runner(device, compiler=compiler.versions())
        try:
            boards = min(board_count(device), section.boards or sys.maxsize)
            protocol = run.config.protocol(threads=device.threads)
            yield Bench(device, runner, compiler, runner.fingerprint(), protocol, max(1, boards))
        finally:
            runner.close()


def open_table(run: Run, bench: Bench) -> LatencyTable:
    """The run's table of this device, begun where there is none. Raises DeviceError, TableError."""
    return LatencyTable.open_for(run.table_path, bench.device, fingerprint=bench.fingerprint, protocol=bench.protocol)


def table_coverage(run: Run, table: LatencyTable) -> Coverage:
    """What of the space the table holds."""
    return coverage(table, arch.every_block(run.space), workers=run.config.device.workers or 2)


def build_table(
    run: Run, bench: Bench, table: LatencyTable, on_event: Callable[[Event], None] = lambda _: None
) -> BuildReport:
    """Every block of the space, with the whole networks that correct and check the prediction."""
    fit, check = correction_networks(run)
    with bench.every_board() as runners:
        return build(
            table,
            arch.every_block(run.space),
            fit=fit,
            check=check,
            compiler=bench.compiler,
            runner=runners,
            protocol=bench.protocol,
            weights=block_weights(run.space),
            budget_minutes=run.config.table.budget_minutes,
            on_event=on_event,
        )


def block_weights(space: SearchSpace) -> dict[Block, float]:
    """What share of the space's MACs each block stands for: a missing heavy and frequent block costs the most error."""
    shares = arch.block_shares(space, np.random.default_rng(0))
    return {block: share * (1 + block_macs(block)) for block, share in shares.items()}


def correction_networks(run: Run) -> tuple[list[Network], list[Network]]:
    """Whole networks to fit the correction on (the extremes first) and others to check it."""
    genes, section = run.space.genes, run.config.table
    wanted = section.fit_networks + section.check_networks
    drawn = arch.sample(genes, 4 * wanted + 16, np.random.default_rng([run.config.run.seed, 7]))
    extremes = [arch.extreme(genes, largest=True), arch.extreme(genes, largest=False)]
    distinct = list(dict.fromkeys([*extremes, *map(arch.to_architecture, drawn)]))[:wanted]
    networks = [network_of(run.space, architecture) for architecture in distinct]
    return networks[: section.fit_networks], networks[section.fit_networks :]


def network_of(space: SearchSpace, architecture: Architecture) -> Network:
    """The whole network of an architecture with fresh weights: latency does not depend on their values."""
    blocks = arch.blocks(space, architecture)
    shape = (1, *space.input_shape(architecture))
    # recipes, because a compiling process knows no registered names
    make = partial(assemble, [block.recipe() for block in blocks])
    return Network(str(list(architecture)), make, (shape,), blocks)


def assemble(recipes: Sequence[Callable[[], nn.Module]]) -> nn.Module:
    """What the recipes build, one after another."""
    return nn.Sequential(*(recipe() for recipe in recipes))


def table_quality(run: Run, table: LatencyTable) -> PredictionQuality | None:
    """How wrong the table is about networks it was not fitted on; None where none was measured or blocks lack."""
    gaps = run.config.table.miss != "estimate" and table.missing(arch.every_block(run.space))
    if gaps or not table.measured("check"):
        return None
    return quality(table, latency_of(run, table))


def latency_of(run: Run, table: LatencyTable) -> Latency:
    """Latency by the run's predictor over `table`."""
    section = run.config.table
    return Latency.of(run.space, table, predictor=section.predictor, estimate=section.miss == "estimate")


def quality(table: LatencyTable, latency: Latency) -> PredictionQuality | None:
    """Prediction against the "check" networks, which no fit has seen; None where there are none."""
    checked = measured_networks(table, "check")
    if not checked:
        return None
    predictions = latency.predictor.predict([row.blocks for row, _ in checked])
    return PredictionQuality.of(
        predictions.mean_ms,
        [table.scale * measurement.latency_ms for _, measurement in checked],
        std_ms=predictions.std_ms,
        noise_floor=None if table.modelled else split_noise_floor([measurement for _, measurement in checked]),
    )


@dataclass(frozen=True, slots=True)
class Visit:
    """Networks timed later than the table, with some of the table's own between them."""

    results: tuple[Measurement | RunFailure, ...]
    anchors: tuple[tuple[Measurement, Measurement], ...] = ()  # the table's networks: (now, then)
    scale: float = 1.0  # of the table, by which "then" is to be multiplied

    @property
    def speed(self) -> float | None:
        """Time the table's networks take now, over what the table says; None where none was timed."""
        ratios = self.ratios()
        return float(np.median(ratios)) if len(ratios) else None

    def ratios(self, percentile: int | None = None) -> FloatArray:
        """Time each of the table's networks takes now over what the table says, at a percentile of its steady runs."""
        q = 50 if percentile is None else percentile
        pairs = [(steady_percentile_ms(now, q), steady_percentile_ms(then, q)) for now, then in self.anchors]
        return np.array([now / (self.scale * then) for now, then in pairs], dtype=np.float64)

    def spread(self, percentile: int | None = None) -> tuple[float, float]:
        """(relative standard deviation, its degrees of freedom) of a figure from one visit to another.

        A network that is loaded anew lies elsewhere in memory and takes a little more or less, by more than its runs
        scatter within a visit: what the table's networks do about their common speed tells by how much. (0, infinite)
        where fewer than two were timed.
        """
        ratios = self.ratios(percentile)
        if len(ratios) < 2:
            return 0.0, inf
        return float(np.std(np.log(ratios), ddof=1)), len(ratios) - 1


def visit(bench: Bench, table: LatencyTable, libraries: Sequence[Path], protocol: Protocol) -> Visit:
    """Time `libraries`, interleaved with the networks that fitted the table's correction as anchors.

    An anchor needs its library in the compiler's cache; nothing is compiled for it.
    """
    anchors = [
        (path, measured)
        for row, measured in measured_networks(table, "fit")
        if row.evidence.artefact is not None and (path := bench.compiler.library(row.evidence.artefact)) is not None
    ]
    results = bench.runner.time([*libraries, *(path for path, _ in anchors)], protocol)
    pairs = [
        (now, then)
        for now, (_, then) in zip(results[len(libraries) :], anchors, strict=True)
        if isinstance(now, Measurement)
    ]
    return Visit(tuple(results[: len(libraries)]), tuple(pairs), table.scale)
