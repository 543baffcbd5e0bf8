"""The device side of a run: an open device with its compiler, the latency table, and latency as a cost."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
from torch import nn

from hwnas.devices import Device, DeviceError, Fingerprint, Measurement, Protocol, RunFailure, Runner
from hwnas.devices.compile import Compiler
from hwnas.devices.registry import Registry, registry_path
from hwnas.devices.runners import board_count, open_runner
from hwnas.engine import architecture as arch
from hwnas.engine.additive import AdditiveCost
from hwnas.engine.architecture import Architecture, FloatArray, IntArray, SearchSpace
from hwnas.engine.evaluation.complexity import block_macs
from hwnas.engine.run import Run, RunError
from hwnas.latency import (
    AdditivePredictor,
    Block,
    BuildReport,
    Coverage,
    LatencyTable,
    Network,
    NetworkRow,
    PredictionQuality,
    build,
    coverage,
    predictor_for,
    split_noise_floor,
)
from hwnas.latency.builder import Event
from hwnas.latency.predictors import Miss
from hwnas.latency.rows import NetworkRole


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
def open_bench(run: Run) -> Iterator[Bench]:
    """The run's device, open; given back at the end. Raises DeviceError."""
    section = run.config.device
    device = find_device(section.name)
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
            protocol = section.protocol(run.config.run.seed, threads=device.threads)
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


@dataclass(frozen=True)
class Latency:
    """Latency of a population on one device, in ms, with its uncertainty."""

    space: SearchSpace
    predictor: AdditivePredictor
    failures: dict[Block, str]
    modelled: bool = False  # a formula answered, no device was measured

    @classmethod
    def of(cls, space: SearchSpace, table: LatencyTable, *, predictor: str, estimate: bool = False) -> Latency:
        """The predictor over the table, fitted on its "fit" networks; `estimate` fills gaps, and widens intervals."""
        miss: Miss | None = "estimate" if estimate else None
        fitted = cast(AdditivePredictor, predictor_for(table, name=predictor, miss=miss))
        if not hasattr(fitted, "block_ms"):
            raise RunError(
                f"table.predictor = {predictor!r} does not tell what a block adds, and a search has to know: choose "
                "corrected, kernels or residual"
            )
        failures = table.failures()
        fitted.fit(table.measured("fit"))
        return cls(space, fitted, failures, table.modelled)

    def additive(self) -> AdditiveCost:
        """The sum that the predictor corrects; infinite where a block failed. Raises LookupError for a gap."""
        return AdditiveCost.of(
            self.space, lambda block: np.inf if block in self.failures else self.predictor.block_ms(block)
        )

    def costs(self, additive: AdditiveCost) -> Callable[[IntArray], FloatArray]:
        """Population -> ms."""
        return lambda X: self.predictor.correct(additive(X))


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


def measured_networks(table: LatencyTable, role: NetworkRole | None = None) -> list[tuple[NetworkRow, Measurement]]:
    """Whole networks that ran, of one role or of both, with their runs."""
    rows = table.networks(role)
    return [(row, row.evidence.result) for row in rows if isinstance(row.evidence.result, Measurement)]


@dataclass(frozen=True, slots=True)
class Visit:
    """Networks timed later than the table, with some of the table's own between them."""

    results: tuple[Measurement | RunFailure, ...]
    speed: float | None  # time the table's networks take now, over what they took then; None where none was timed


def visit(bench: Bench, table: LatencyTable, libraries: Sequence[Path], protocol: Protocol) -> Visit:
    """Time `libraries`, interleaved with the networks that fitted the table's correction as anchors.

    An anchor needs its library in the compiler's cache; nothing is compiled for it.
    """
    scale = table.scale
    anchors = [
        (path, scale * measured.latency_ms)
        for row, measured in measured_networks(table, "fit")
        if row.evidence.artefact is not None and (path := bench.compiler.library(row.evidence.artefact)) is not None
    ]
    results = bench.runner.time([*libraries, *(path for path, _ in anchors)], protocol)
    ratios = [
        now.latency_ms / then_ms
        for now, (_, then_ms) in zip(results[len(libraries) :], anchors, strict=True)
        if isinstance(now, Measurement)
    ]
    return Visit(tuple(results[: len(libraries)]), float(np.median(ratios)) if ratios else None)
