"""Rows of a latency table: what they hold, and how they are written down."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal

from sqlalchemy import Row

from hwnas.devices import Measurement, Protocol
from hwnas.latency.block import Block

NetworkRole = Literal["fit", "check"]

compact = partial(json.dumps, separators=(",", ":"), sort_keys=True)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What measuring something gave: its runs, or why there are none."""

    result: Measurement | str  # text of the error
    artefact: str | None = None  # key of the compiled library
    compile_cpu_s: float | None = None  # None where it came from a cache


@dataclass(frozen=True, slots=True)
class BlockRow:
    """A block and what measuring it gave."""

    block: Block
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class NetworkRow:
    """A whole network measured end to end: "fit" networks correct a predictor, "check" networks judge it."""

    label: str
    role: NetworkRole
    blocks: tuple[Block, ...]
    evidence: Evidence

    @property
    def key(self) -> str:
        """16 hex digits of the blocks in their order: networks of equal blocks are one network."""
        return network_key(self.blocks)


def network_key(blocks: Sequence[Block]) -> str:
    """16 hex digits of a network's blocks in their order."""
    return hashlib.sha256(" ".join(block.key for block in blocks).encode()).hexdigest()[:16]


def _evidence_columns(evidence: Evidence) -> dict[str, Any]:
    result = evidence.result
    measured = isinstance(result, Measurement)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {
        # a nanosecond is below any clock's step
        "runs_ms": compact([round(run, 6) for run in result.runs_ms]) if isinstance(result, Measurement) else None,
        "drift": compact(result.drift) if isinstance(result, Measurement) and result.drift else None,
        "error": None if measured else result,
        "measured_at": result.measured_at if isinstance(result, Measurement) else now,
        "artefact": evidence.artefact,
        "compile_cpu_s": evidence.compile_cpu_s,
    }


def block_columns(row: BlockRow) -> dict[str, Any]:
    """What the database keeps of a block's row, besides whose it is."""
    return {"key": row.block.key, "block": compact(row.block.to_json()), **_evidence_columns(row.evidence)}


def network_columns(row: NetworkRow) -> dict[str, Any]:
    """What the database keeps of a network's row, besides whose it is."""
    blocks = compact([block.to_json() for block in row.blocks])
    return {
        "key": row.key,
        "label": row.label,
        "role": row.role,
        "blocks": blocks,
        **_evidence_columns(row.evidence),
    }


def evidence_of(row: Row[Any]) -> Evidence:
    """The evidence of a stored row joined with its visit's protocol."""
    result: Measurement | str = row.error or ""
    if row.error is None:
        protocol = Protocol.from_json(json.loads(row.protocol))
        drift = tuple(json.loads(row.drift)) if row.drift else ()
        result = Measurement(tuple(json.loads(row.runs_ms)), protocol, row.measured_at, drift)
    return Evidence(result, row.artefact, row.compile_cpu_s)


def network_row(row: Row[Any]) -> NetworkRow:
    """The network of a stored row."""
    blocks = tuple(Block.from_json(block) for block in json.loads(row.blocks))
    return NetworkRow(row.label, row.role, blocks, evidence_of(row))


FRAME_COLUMNS = (
    "factory", "arguments", "inputs", "dtype", "latency_ms", "p10_ms", "low_ms", "high_ms", "runs", "error",
    "measured_at", "artefact", "compile_cpu_s", "key",
)  # fmt: skip


def frame_line(row: BlockRow) -> Mapping[str, Any]:
    """What a person reads of a block's row, under the names of FRAME_COLUMNS."""
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
    low_ms, high_ms = result.ci_ms()
    measured = {"latency_ms": result.latency_ms, "p10_ms": result.percentile_ms(10), "low_ms": low_ms}
    return {**line, **measured, "high_ms": high_ms, "runs": len(result.runs_ms), "measured_at": result.measured_at}
