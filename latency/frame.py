"""A latency table as a person reads it: one line a block."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from hwnas.devices import Measurement
from hwnas.devices.measurement import TAIL_RUNS
from hwnas.latency.rows import BlockRow, Quoted

COLUMNS = (
    "factory", "arguments", "inputs", "dtype", "latency_ms", "low_ms", "high_ms", "p10_ms", "p50_ms", "p90_ms",
    "p99_ms", "runs", "outliers", "energy_mj", "error", "measured_at", "artefact", "compile_cpu_s", "key",
)  # fmt: skip


def to_frame(rows: Iterable[BlockRow]) -> pd.DataFrame:
    """One line a block, under COLUMNS; tails only where there are runs enough to speak of one."""
    return pd.DataFrame([_line(row) for row in rows], columns=COLUMNS)


def _line(row: BlockRow) -> Mapping[str, Any]:
    block, result = row.block, row.evidence.result
    line: dict[str, Any] = {
        "factory": block.factory,
        "arguments": ", ".join(f"{name}={value}" for name, value in block.kwargs),
        "inputs": " ".join("x".join(map(str, shape)) for shape in block.inputs),
        "dtype": block.dtype,
        "artefact": row.evidence.artefact,
        "compile_cpu_s": row.evidence.compile_cpu_s,
        "key": block.key,
    }
    if isinstance(result, str):
        return {**line, "error": result}
    if isinstance(result, Quoted):
        return {**line, "latency_ms": result.latency_ms, "runs": result.runs}
    return {**line, **_measured(result)}


def _measured(measurement: Measurement) -> dict[str, Any]:
    low_ms, high_ms = measurement.ci_ms()
    runs = len(measurement.runs_ms)
    tails = {f"p{q}_ms": measurement.tail_ms(q) for q in (50, 90, 99)} if runs >= TAIL_RUNS else {}
    return {
        "latency_ms": measurement.latency_ms,
        "low_ms": low_ms,
        "high_ms": high_ms,
        "p10_ms": measurement.percentile_ms(10),
        **tails,
        "runs": runs,
        "outliers": measurement.outliers,
        "energy_mj": measurement.energy_mj,
        "measured_at": measurement.measured_at,
    }
