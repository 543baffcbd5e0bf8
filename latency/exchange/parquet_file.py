"""A latency table as a Parquet file: a line a row, for pandas, DuckDB or Spark; the rest in the file's metadata."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from hwnas.latency.exchange.document import FORMAT, Document, sealed, unsealed

_METADATA = FORMAT.replace(" ", "_").encode()
_JSON = ("blocks", "quoted")  # nested values, kept as JSON text


def write(document: Document, path: Path) -> None:
    """Write the document. Raises ImportError, OSError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    data = sealed(document)
    rows = data.pop("rows")
    text, number, numbers = pa.string(), pa.float64(), pa.list_(pa.float64())
    types = {
        "kind": text, "visit": pa.int32(), "key": text, "label": text, "role": text, "blocks": text,
        "latency_ms": number, "runs_ms": numbers, "drift": numbers, "energy_mj": number, "error": text,
        "quoted": text, "measured_at": text, "artefact": text, "compile_cpu_s": number, "superseded_at": text,
    }  # fmt: skip
    speeds = [visit.speed for visit in document.visits]
    lines = [{**_flat(row), "latency_ms": _latency_ms(row, speeds[row["visit"]])} for row in rows]
    schema = pa.schema(types, metadata={_METADATA: json.dumps(data).encode()})
    pq.write_table(pa.Table.from_pylist(lines, schema=schema), path, compression="zstd")


def read(path: Path) -> Document:
    """The document in the file. Raises ValueError, ImportError, OSError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    content = pa.BufferReader(path.read_bytes())
    try:
        table = pq.read_table(content)
    except (pa.ArrowException, OSError) as error:  # to pyarrow, a page that makes no sense is an OSError too
        raise ValueError(str(error)) from error
    metadata = table.schema.metadata or {}
    if _METADATA not in metadata:
        raise ValueError(f"it does not say that it is a {FORMAT}")
    return unsealed({**json.loads(metadata[_METADATA]), "rows": [_nested(line) for line in table.to_pylist()]})


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    return {name: json.dumps(value) if name in _JSON else value for name, value in row.items()}


def _nested(line: dict[str, Any]) -> dict[str, Any]:
    """A row as `sealed` made it; `latency_ms` is for people alone."""
    held = {name: value for name, value in line.items() if value is not None and name != "latency_ms"}
    return {name: json.loads(value) if name in _JSON else value for name, value in held.items()}


def _latency_ms(row: dict[str, Any], speed: float | None) -> float | None:
    """Median run at the speed of the first visit, as `Measurement.latency_ms` of the table."""
    if "quoted" in row:
        return float(row["quoted"]["mean_ms"])
    if "runs_ms" not in row:
        return None
    runs = np.asarray(row["runs_ms"])
    drift = np.asarray(row.get("drift", [1.0])) * (speed or 1.0)
    return float(np.median(runs / np.repeat(drift, len(runs) // len(drift))))
