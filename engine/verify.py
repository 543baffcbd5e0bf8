"""Verification: every candidate compiled whole, measured on the device and scored on the test split."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from torch import nn

from hwnas.devices import Measurement, Protocol, RunFailure
from hwnas.devices.compile import Artefact, CompileJob, read_manifest
from hwnas.devices.costs import weight_bytes
from hwnas.engine.architecture import Architecture, BoolArray
from hwnas.engine.front import Front, FrontPoint
from hwnas.engine.hardware import Bench, Visit, visit
from hwnas.engine.measured import Answers, judged, long_enough, reading
from hwnas.engine.noise import most_uncertain_first
from hwnas.engine.objective import Quantity
from hwnas.engine.objectives.accuracy import share_error
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

    Order and dominance come from measured latency and test accuracy alone, and a difference inside the noise makes no
    point. A point whose measured figure may break a limit, by its upper confidence bound, is out; the next candidates
    are measured in its place, visit after visit, until none breaks one, none is left, or `[verify] replacements` visits
    were made (`replacements` in the provenance: visits made, and whether the front stood still). The provenance says
    how fast the device was beside the time of its table (`speed_since_table`, a ratio of latencies). Raises RunError
    where nothing ran, or nothing keeps the limits.
    """
    section, device = run.config.verify, bench.device.name
    limits = {q: upper for q, upper in run.config.search.uppers.items() if q.device in (None, device)}
    weighed = [Quantity.parse(name) for name in front.objectives]
    protocol = replace(bench.protocol, rounds=section.rounds, repeats=section.repeats)
    protocol = long_enough(protocol, [*limits, *weighed])
    waiting = _in_order(run, front)
    batch, waiting = waiting[: section.candidates], waiting[section.candidates :]
    state = _State(run, bench, table, protocol, limits, on_compiled)
    broken = state.visit(batch)
    while broken and waiting and state.visits <= section.replacements:
        batch, waiting = waiting[:broken], waiting[broken:]
        broken = state.visit(batch)
    if not state.measurements:
        raise RunError(f"none of {state.tried} candidates ran on {device!r}: first, {state.rejected[0].reason}")
    if not state.points:
        raise RunError(
            f"none of {len(state.measurements)} measured candidates keeps the limits on {device!r}: first, "
            f"{state.rejected[0].reason}: raise the limit, or search again with a higher [search] confidence"
        )
    fingerprint = bench.runner.fingerprint()
    provenance = {
        **front.provenance,
        "device": bench.device.to_json(),
        "fingerprint": fingerprint.to_json(),
        "modelled": fingerprint.modelled,
        "verification_protocol": protocol.to_json(),
        "measured": len(state.measurements),
        "speed_since_table": state.speed,
        "replacements": {"visits": state.visits - 1, "still": not broken},
        "rejected": [{"indices": list(r.architecture), "reason": r.reason} for r in state.rejected],
    }
    found = judged(
        Front.of(state.points, provenance=provenance),
        Answers(state.right, state.measurements, state.between),
        confidence=section.confidence,
        other_images=section.other_images,
    )
    return Verified(found, tuple(state.rejected), state.libraries, state.measurements)


def _in_order(run: Run, front: Front) -> list[FrontPoint]:
    """Every candidate; those whose place on the front is least certain as predicted come first."""
    points = [*front.points, *front.dominated]
    errors = 1 - np.array([point.accuracy_validation for point in points])
    latencies = np.array([point.latency_predicted_ms for point in points])
    stds = np.array([point.latency_std_ms for point in points])
    doubt = np.stack([stds, share_error(errors, len(run.data.validation))], axis=1)
    return [points[i] for i in most_uncertain_first(np.stack([latencies, errors], axis=1), doubt)]


@dataclass
class _State:
    """What the visits of a verification have found so far."""

    run: Run
    bench: Bench
    table: LatencyTable
    protocol: Protocol
    limits: Mapping[Quantity, float]
    on_compiled: Callable[[int, int], None] | None
    visits: int = 0
    tried: int = 0
    speed: float | None = None  # of the device in the first visit
    between: float = 0.0  # relative standard deviation of a latency from visit to visit
    points: list[FrontPoint] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    libraries: dict[Architecture, Path] = field(default_factory=dict)
    measurements: dict[Architecture, Measurement] = field(default_factory=dict)
    right: dict[Architecture, BoolArray] = field(default_factory=dict)  # of each test image, whether it was labelled so

    def visit(self, batch: Sequence[FrontPoint]) -> int:
        """Measure these candidates; how many are out: they did not run, or may break a limit."""
        points = sorted(batch, key=lambda point: point.latency_predicted_ms)
        libraries, failed = compile_points(self.run, self.bench, points, self.on_compiled)
        compiled = [point for point in points if point.architecture in libraries]
        seen = visit(self.bench, self.table, [libraries[point.architecture] for point in compiled], self.protocol)
        self.visits, self.tried = self.visits + 1, self.tried + len(points)
        if self.visits == 1:
            self.speed, self.between = seen.speed, seen.spread()[0]
        self.libraries |= libraries
        self.rejected += failed
        out = len(failed)
        ran = [p for p, result in zip(compiled, seen.results, strict=True) if isinstance(result, Measurement)]
        self.right |= self.run.evaluator.answers([point.architecture for point in ran], self.run.data.test)
        for point, result in zip(compiled, seen.results, strict=True):
            if isinstance(result, RunFailure):
                reason = str(result)
            else:
                measured = self._measured(point, self._at_first_speed(result, seen))
                reason = self._broken(measured, result, seen)
            if reason:
                self.rejected.append(Rejected(point.architecture, reason))
                out += 1
            else:
                self.points.append(measured)
        return out

    def _at_first_speed(self, result: Measurement, seen: Visit) -> Measurement:
        """The runs as they would have been in the first visit: points of two visits are compared."""
        if self.visits == 1 or not seen.speed or not self.speed:
            return result
        factor = seen.speed / self.speed
        return replace(result, drift=tuple(factor * each for each in result.drift or (1.0,)))

    def _broken(self, point: FrontPoint, result: Measurement, seen: Visit) -> str:
        """Which limit the point may break; nothing where it keeps all."""
        confidence = self.run.config.search.confidence
        for quantity, upper in self.limits.items():
            found = reading(quantity, point, result, seen)
            if found is not None and not found.upper(confidence) <= upper:
                return (
                    f"{quantity} was measured at {found.value:.4g} and is below {found.upper(confidence):.4g} with "
                    f"{confidence:.0%} confidence, the limit is {upper:g}"
                )
        return ""

    def _measured(self, point: FrontPoint, measurement: Measurement) -> FrontPoint:
        self.measurements[point.architecture] = measurement
        device, figures = self.bench.device.name, dict(point.figures)
        found = replace(
            point,
            weight_bytes=weight_bytes(self.run.evaluator.subnet(point.architecture)),
            peak_memory_bytes=read_manifest(self.libraries[point.architecture]).peak_bytes,
            energy_mj=measurement.energy_mj,
            accuracy_test=float(self.right[point.architecture].mean()),
            latency_ms=measurement.latency_ms,
            latency_ci_ms=measurement.ci_ms(),
            latency_p99_ms=measurement.percentile_ms(99),
            verified=True,
        )
        for quantity in map(Quantity.parse, point.figures):
            if quantity.device in (None, device):
                read = reading(quantity, found, measurement, Visit(()))
                figures |= {} if read is None else {str(quantity): read.value}
        return replace(found, figures=figures)


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
