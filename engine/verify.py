"""Verification: every candidate compiled whole, measured on the device and scored on the test split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from hwnas.devices import Measurement, RunFailure
from hwnas.devices.compile import Artefact, CompileJob
from hwnas.engine.architecture import Architecture
from hwnas.engine.front import Front, FrontPoint
from hwnas.engine.hardware import Bench
from hwnas.engine.run import Run, RunError


@dataclass(frozen=True)
class Given:
    """A job's factory for a network that exists already."""

    network: nn.Module

    def __call__(self) -> nn.Module:
        """The network."""
        return self.network


@dataclass(frozen=True, slots=True)
class Rejected:
    """A candidate that did not compile or run, and why."""

    architecture: Architecture
    reason: str


def compile_points(
    run: Run, bench: Bench, points: Sequence[FrontPoint], on_compiled: Callable[[int, int], None] | None = None
) -> tuple[dict[Architecture, Path], list[Rejected]]:
    """A library for each point with its own weights and recalibrated BatchNorm, and what failed."""
    jobs = [
        CompileJob(
            Given(run.evaluator.subnet(point.architecture)),
            ((1, *run.space.input_shape(point.architecture)),),
            str(list(point.architecture)),
        )
        for point in points
    ]
    libraries: dict[Architecture, Path] = {}
    rejected = []
    for done, (index, result) in enumerate(bench.compiler.compile(jobs), 1):
        architecture = points[index].architecture
        if isinstance(result, Artefact):
            libraries[architecture] = result.path
        else:
            rejected.append(Rejected(architecture, str(result)))
        if on_compiled is not None:
            on_compiled(done, len(jobs))
    return libraries, rejected


def verify(
    run: Run, bench: Bench, front: Front, on_compiled: Callable[[int, int], None] | None = None
) -> tuple[Front, list[Rejected]]:
    """Measure the front's points and its runners-up whole, interleaved; the front of what was measured.

    Order and dominance come from measured latency and test accuracy alone. Raises RunError where nothing ran.
    """
    points = sorted([*front.points, *front.dominated], key=lambda point: point.latency_predicted_ms)
    libraries, rejected = compile_points(run, bench, points, on_compiled)
    section = run.config.verify
    protocol = replace(bench.protocol, rounds=section.rounds, repeats=section.repeats)
    compiled = [point for point in points if point.architecture in libraries]
    timed = bench.runner.time([libraries[point.architecture] for point in compiled], protocol)
    verified = []
    for point, result in zip(compiled, timed, strict=True):
        if isinstance(result, RunFailure):
            rejected.append(Rejected(point.architecture, str(result)))
            continue
        verified.append(_measured(run, point, result))
    if not verified:
        raise RunError(f"none of {len(points)} candidates ran on {bench.device.name!r}: first, {rejected[0].reason}")
    provenance = {
        **front.provenance,
        "device": bench.device.to_json(),
        "fingerprint": bench.runner.fingerprint().to_json(),
        "verification_protocol": protocol.to_json(),
        "measured": len(verified),
        "rejected": [{"indices": list(r.architecture), "reason": r.reason} for r in rejected],
    }
    return Front.of(verified, provenance=provenance), rejected


def _measured(run: Run, point: FrontPoint, measurement: Measurement) -> FrontPoint:
    return replace(
        point,
        accuracy_test=run.evaluator.accuracy(point.architecture, run.data.test),
        latency_ms=measurement.latency_ms,
        latency_ci_ms=measurement.ci_ms(),
        latency_p99_ms=measurement.percentile_ms(99),
        verified=True,
    )
