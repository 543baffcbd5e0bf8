"""Verification: every candidate compiled whole, measured on the device and scored on the test split."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from hwnas.devices import Measurement, Protocol, RunFailure
from hwnas.devices.compile import Artefact, CompileJob, read_manifest
from hwnas.devices.costs import weight_bytes
from hwnas.engine.architecture import Architecture
from hwnas.engine.front import Front, FrontPoint
from hwnas.engine.hardware import Bench, visit
from hwnas.engine.run import Run, RunError, write_text
from hwnas.latency import LatencyTable


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


@dataclass(frozen=True, slots=True)
class Verified:
    """A front of measured points, with what each measurement stands on."""

    front: Front
    rejected: tuple[Rejected, ...]
    libraries: dict[Architecture, Path]
    measurements: dict[Architecture, Measurement]  # raw runs of every candidate


def verify(
    run: Run,
    bench: Bench,
    table: LatencyTable,
    front: Front,
    on_compiled: Callable[[int, int], None] | None = None,
) -> Verified:
    """Measure the front's points and its runners-up whole, interleaved; the front of what was measured.

    Order and dominance come from measured latency and test accuracy alone. The provenance says how fast the device
    was beside the time of its table (`speed_since_table`, a ratio of latencies). Raises RunError where nothing ran.
    """
    points = sorted([*front.points, *front.dominated], key=lambda point: point.latency_predicted_ms)
    libraries, rejected = compile_points(run, bench, points, on_compiled)
    section = run.config.verify
    protocol = replace(bench.protocol, rounds=section.rounds, repeats=section.repeats)
    compiled = [point for point in points if point.architecture in libraries]
    seen = visit(bench, table, [libraries[point.architecture] for point in compiled], protocol)
    verified, measurements = [], {}
    for point, result in zip(compiled, seen.results, strict=True):
        if isinstance(result, RunFailure):
            rejected.append(Rejected(point.architecture, str(result)))
            continue
        verified.append(_measured(run, point, result, libraries[point.architecture]))
        measurements[point.architecture] = result
    if not verified:
        raise RunError(f"none of {len(points)} candidates ran on {bench.device.name!r}: first, {rejected[0].reason}")
    fingerprint = bench.runner.fingerprint()
    provenance = {
        **front.provenance,
        "device": bench.device.to_json(),
        "fingerprint": fingerprint.to_json(),
        "modelled": fingerprint.modelled,
        "verification_protocol": protocol.to_json(),
        "measured": len(verified),
        "speed_since_table": seen.speed,
        "rejected": [{"indices": list(r.architecture), "reason": r.reason} for r in rejected],
    }
    return Verified(Front.of(verified, provenance=provenance), tuple(rejected), libraries, measurements)


def write_measurements(run: Run, verified: Verified) -> None:
    """Keep the raw runs beside the front."""
    rows = [
        {
            "indices": list(a),
            "runs_ms": list(m.runs_ms),
            "drift": list(m.drift),
            "protocol": m.protocol.to_json(),
            "measured_at": m.measured_at,
        }
        for a, m in verified.measurements.items()
    ]
    write_text(run.measurements_path, json.dumps(rows))


def read_measurements(run: Run) -> dict[Architecture, Measurement]:
    """The raw runs of the last verification; none where there was none. Raises RunError."""
    path = run.measurements_path
    if not path.exists():
        return {}
    try:
        return {
            tuple(row["indices"]): Measurement(
                tuple(row["runs_ms"]), Protocol.from_json(row["protocol"]), row["measured_at"], tuple(row["drift"])
            )
            for row in json.loads(path.read_text(encoding="utf-8"))
        }
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path}: not whole ({error!r}): run `hwnas front verify` again") from error


def _measured(run: Run, point: FrontPoint, measurement: Measurement, library: Path) -> FrontPoint:
    return replace(
        point,
        weight_bytes=weight_bytes(run.evaluator.subnet(point.architecture)),
        peak_memory_bytes=read_manifest(library).peak_bytes,
        energy_mj=measurement.energy_mj,
        accuracy_test=run.evaluator.accuracy(point.architecture, run.data.test),
        latency_ms=measurement.latency_ms,
        latency_ci_ms=measurement.ci_ms(),
        latency_p99_ms=measurement.percentile_ms(99),
        verified=True,
    )
