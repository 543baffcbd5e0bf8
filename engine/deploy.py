"""The last stage of a run: each verified point as a folder of artefacts, and the report."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from hwnas.devices import Fingerprint, Protocol
from hwnas.engine.architecture import Architecture
from hwnas.engine.candidates import read_search
from hwnas.engine.device_costs import Latency, measured_networks
from hwnas.engine.export import ExportRecord, Origin, export_point, folder_name
from hwnas.engine.front import Front
from hwnas.engine.hardware import Bench, latency_of, table_quality
from hwnas.engine.report import Candidates, HypervolumeTrace, NetworkCheck, ReportData, TableSummary
from hwnas.engine.run import Run, RunError
from hwnas.engine.search import hypervolume_trace
from hwnas.engine.verify import compile_points, read_measurements
from hwnas.latency import LatencyTable


def export_front(
    run: Run,
    bench: Bench,
    front: Front,
    *,
    libraries: Mapping[Architecture, Path] | None = None,
    on_exported: Callable[[int, int], None] | None = None,
) -> list[ExportRecord]:
    """Every point of a verified front as a folder in the run's `export`; folders of earlier fronts are removed.

    Raises RunError for a front that was not verified, ExportError for an artefact that differs from the supernet.
    """
    if not front.points or not all(point.verified for point in front.points):
        raise RunError(f"{run.front_path}: not verified: run `hwnas front verify` first")
    if libraries is None:
        libraries, rejected = compile_points(run, bench, front.points)
        if rejected:
            raise RunError(f"{list(rejected[0].architecture)} did not compile: {rejected[0].reason}")
    measurements = read_measurements(run)
    fingerprint = front.provenance.get("fingerprint")
    protocol = front.provenance.get("verification_protocol")
    origin = Origin(
        space=run.config.space.model_dump(mode="json"),
        mean=run.data.mean,
        std=run.data.std,
        classes=run.data.classes,
        device=bench.device.name,
        fingerprint=None if fingerprint is None else Fingerprint.from_json(fingerprint),
        protocol=None if protocol is None else Protocol.from_json(protocol),
        details=run.provenance(),
    )
    records = []
    for number, point in enumerate(front.points, 1):
        architecture = point.architecture
        records.append(
            export_point(
                point,
                run.evaluator.subnet(architecture),
                run.evaluator.reference(architecture),
                input_shape=run.space.input_shape(architecture),
                artefact=libraries[architecture],
                runner=bench.runner,
                folder=run.export_folder / folder_name(number, point),
                provenance=origin,
                measurement=measurements.get(architecture),
                # a model runs nothing, and another runtime's artefact is no library
                without=frozenset() if bench.device.runtime == "tvm" else frozenset({"model.so"}),
            )
        )
        if on_exported is not None:
            on_exported(number, len(front.points))
    written = {record.folder.name for record in records}
    for old in run.export_folder.glob("point-*"):
        if old.name not in written:
            shutil.rmtree(old)
    return records


def report_data(run: Run, table: LatencyTable, *, commands: tuple[str, ...]) -> ReportData:
    """What the run's report shows."""
    front = run.front()
    latency = latency_of(run, table)
    trace = candidates = None
    names, evaluated = read_search(run.search_path) if run.search_path.exists() else ((), None)
    latency_name = f"latency_ms@{run.config.device.name}"
    if evaluated is not None and {"accuracy", latency_name} <= set(names):
        pair = [names.index(latency_name), names.index("accuracy")]
        evaluated = replace(evaluated, costs=evaluated.costs[:, pair])
        kept = evaluated.feasible
        candidates = Candidates(kept.costs[:, 0], 1 - kept.costs[:, 1])
        found = hypervolume_trace(evaluated)
        trace = HypervolumeTrace(found.evaluations, found.share, found.reference[0], 1 - found.reference[1])
    return ReportData(
        title=f"hwnas: {run.config.run.name}",
        front=front,
        device=f"{table.device.name}: {table.fingerprint.soc}",
        created=datetime.now(UTC).isoformat(timespec="minutes"),
        test_size=len(run.data.test),
        history=run.history,
        trace=trace,
        candidates=candidates,
        checks=_checks(table, latency, front),
        quality=table_quality(run, table),
        table=TableSummary(len(table.block_rows()), len(table.failures()), len(table.networks())),
        fingerprint=table.fingerprint,
        protocol=table.protocol,
        provenance=run.provenance(),
        commands=commands,
    )


def _checks(table: LatencyTable, latency: Latency, front: Front) -> tuple[NetworkCheck, ...]:
    checks = []
    for row, measurement in measured_networks(table):
        (prediction,) = latency.predictor.predict([row.blocks])
        checks.append(
            NetworkCheck(row.label, row.role, prediction.mean_ms, measurement.latency_ms, measurement.ci_ms())
        )
    speed = front.provenance.get("speed_since_table") or 1.0
    for point in (*front.points, *front.dominated):
        if point.verified and point.latency_ms is not None:
            label = f"{list(point.architecture)}, predicted x {speed:.2f} for the device's speed since its table"
            predicted_ms = point.latency_predicted_ms * speed
            checks.append(NetworkCheck(label, "front", predicted_ms, point.latency_ms, point.latency_ci_ms))
    return tuple(checks)
