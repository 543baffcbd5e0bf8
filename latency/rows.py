"""Rows of a latency table: what they hold, and how they are written down."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal

from sqlalchemy import Row

from hwnas.devices import Fingerprint, Measurement, Protocol
from hwnas.latency.block import Block

NetworkRole = Literal["fit", "check"]
Verdict = Literal["unchanged", "moved"]

compact = partial(json.dumps, separators=(",", ":"), sort_keys=True)


@dataclass(frozen=True, slots=True)
class Quoted:
    """A latency that somebody else's file states and whose runs it does not keep: no evidence to look into."""

    mean_ms: float
    std_ms: float | None = None
    runs: int | None = None  # how many the file says there were

    def __post_init__(self) -> None:
        if not 0 < self.mean_ms < float("inf"):
            raise ValueError(f"a latency of {self.mean_ms} ms: a block takes more than no time")

    @property
    def latency_ms(self) -> float:
        """The mean: the file keeps no median."""
        return self.mean_ms


@dataclass(frozen=True, slots=True)
class Evidence:
    """What measuring something gave: its runs, or why there are none."""

    result: Measurement | Quoted | str  # text of the error
    artefact: str | None = None  # key of the compiled library
    compile_cpu_s: float | None = None  # None where it came from a cache


@dataclass(frozen=True, slots=True)
class BlockRow:
    """A block and what measuring it gave."""

    block: Block
    evidence: Evidence

    @property
    def key(self) -> str:
        """16 hex digits of the block."""
        return self.block.key


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


@dataclass(frozen=True, slots=True)
class Visit:
    """One visit to the device: its state before and after, and its speed by the anchors measured in it."""

    uid: str  # the same in every copy of the table
    fingerprint: Fingerprint
    after: Fingerprint | None
    protocol: Protocol
    speed: float | None  # time that the anchors took over what they took in the first visit; None: not known
    added_at: str  # ISO 8601, UTC
    anchors: tuple[tuple[str, Measurement], ...] = ()  # (key of the block or network, its raw runs in this visit)


@dataclass(frozen=True, slots=True)
class DriftCheck:
    """A look at whether the device still has the speed that its table was measured at."""

    fingerprint: Fingerprint
    speed: float  # time that the sentinels took over what the table says
    low: float  # 95 % interval of the speed
    high: float
    sentinels: int  # how many blocks were measured again
    verdict: Verdict
    accepted: bool  # a person let the table be rescaled by it
    created_at: str  # ISO 8601, UTC


def network_key(blocks: Sequence[Block]) -> str:
    """16 hex digits of a network's blocks in their order."""
    return hashlib.sha256(" ".join(block.key for block in blocks).encode()).hexdigest()[:16]


def now() -> str:
    """The time as ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def run_columns(key: str, measurement: Measurement) -> dict[str, Any]:
    """What the database keeps of timed runs."""
    return {
        "key": key,
        # a nanosecond is below any clock's step
        "runs_ms": compact([round(run, 6) for run in measurement.runs_ms]),
        "drift": compact(measurement.drift) if measurement.drift else None,
        "energy_mj": measurement.energy_mj,
        "measured_at": measurement.measured_at,
    }


def block_columns(row: BlockRow) -> dict[str, Any]:
    """What the database keeps of a block's row, besides whose it is."""
    return {"block": compact(row.block.to_json()), **_evidence_columns(row)}


def network_columns(row: NetworkRow) -> dict[str, Any]:
    """What the database keeps of a network's row, besides whose it is."""
    blocks = compact([block.to_json() for block in row.blocks])
    return {"label": row.label, "role": row.role, "blocks": blocks, **_evidence_columns(row)}


def check_columns(check: DriftCheck) -> dict[str, Any]:
    """What the database keeps of a drift check, besides whose it is."""
    return {
        "created_at": check.created_at,
        "fingerprint": compact(check.fingerprint.to_json()),
        "speed": check.speed,
        "low": check.low,
        "high": check.high,
        "sentinels": check.sentinels,
        "verdict": check.verdict,
        "accepted": check.accepted,
    }


def _evidence_columns(row: BlockRow | NetworkRow) -> dict[str, Any]:
    result = row.evidence.result
    columns: dict[str, Any] = {
        **dict.fromkeys(("runs_ms", "drift", "energy_mj", "error", "quoted")),
        "key": row.key,
        "measured_at": now(),
        "artefact": row.evidence.artefact,
        "compile_cpu_s": row.evidence.compile_cpu_s,
    }
    if isinstance(result, Measurement):
        return {**columns, **run_columns(row.key, result)}
    if isinstance(result, Quoted):
        return {**columns, "quoted": compact({"mean_ms": result.mean_ms, "std_ms": result.std_ms, "runs": result.runs})}
    return {**columns, "error": _storable(result)}


def _storable(text: str) -> str:
    """Text of a crashed compiler may hold bytes that are no text: databases refuse them."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")


def measurement_of(row: Row[Any]) -> Measurement:
    """The runs of a stored row joined with its visit's protocol, as they were timed in that visit."""
    drift = tuple(json.loads(row.drift)) if row.drift else ()
    protocol = Protocol.from_json(json.loads(row.protocol))
    runs_ms = tuple(json.loads(row.runs_ms))
    return Measurement(runs_ms, protocol, row.measured_at, drift, energy_mj=row.energy_mj)


def _at_first_speed(measurement: Measurement, speed: float | None) -> Measurement:
    """What the device would have taken in the table's first visit; raw runs stay."""
    if speed is None:
        return measurement
    return replace(measurement, drift=tuple(factor * speed for factor in measurement.drift or (1.0,)))


def evidence_of(row: Row[Any]) -> Evidence:
    """The evidence of a stored row joined with its visit's protocol and speed."""
    result: Measurement | Quoted | str
    if row.error is not None:
        result = row.error
    elif row.quoted is not None:
        result = Quoted(**json.loads(row.quoted))
    else:
        result = _at_first_speed(measurement_of(row), row.speed)
    return Evidence(result, row.artefact, row.compile_cpu_s)


def block_row(row: Row[Any]) -> BlockRow:
    """The block of a stored row."""
    return BlockRow(Block.from_json(json.loads(row.block)), evidence_of(row))


def network_row(row: Row[Any]) -> NetworkRow:
    """The network of a stored row."""
    blocks = tuple(Block.from_json(block) for block in json.loads(row.blocks))
    return NetworkRow(row.label, row.role, blocks, evidence_of(row))


def visit_of(row: Row[Any], anchors: Sequence[Row[Any]]) -> Visit:
    """The visit of a stored row, with the rows of its anchors."""
    return Visit(
        row.uid,
        Fingerprint.from_json(json.loads(row.fingerprint)),
        Fingerprint.from_json(json.loads(row.fingerprint_after)) if row.fingerprint_after else None,
        Protocol.from_json(json.loads(row.protocol)),
        row.speed,
        row.added_at,
        tuple((anchor.key, measurement_of(anchor)) for anchor in anchors),
    )


def check_of(row: Row[Any]) -> DriftCheck:
    """The drift check of a stored row."""
    return DriftCheck(
        Fingerprint.from_json(json.loads(row.fingerprint)),
        row.speed,
        row.low,
        row.high,
        row.sentinels,
        row.verdict,
        row.accepted,
        row.created_at,
    )
