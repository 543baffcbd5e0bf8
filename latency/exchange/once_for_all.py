"""The lookup tables of Once-for-All: a YAML file of {name of a block: {mean, std, count}}, times in ms.

The format is that of `ofa/nas/efficiency_predictor/latency_lookup_table.py` (Cai et al., 2020, MIT licence), which
reads nothing but `mean`. It knows neither the device nor the runs: a table from such a file says so everywhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from scipy.stats import median_abs_deviation

from hwnas.devices import Device, Fingerprint, Measurement, Protocol
from hwnas.latency.block import Block
from hwnas.latency.exchange.document import Document, RowEntry, VisitEntry
from hwnas.latency.rows import Quoted
from hwnas.latency.table import LatencyTable

# What a file of unknown origin says of how it was timed: hwnas timed nothing.
_NO_PROTOCOL = Protocol(rounds=0, repeats=0, warmup=0, burn_in=0, pinned=False, niceness=0)


class _Entry(BaseModel):
    """What a name stands for; more than these is allowed, as there."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)
    mean: float = Field(gt=0)
    std: float | None = Field(default=None, ge=0)
    count: int | None = Field(default=None, ge=1)


@dataclass(frozen=True, slots=True)
class Named:
    """Latencies under the names of Once-for-All, and the blocks that have no name there or no latency."""

    entries: dict[str, dict[str, float]]
    left_out: tuple[str, ...]


def named(table: LatencyTable, name_of: Callable[[Block], str | None]) -> Named:
    """What of a table Once-for-All can name.

    Mean and standard deviation leave out what lies farther than 3 scaled median absolute deviations from the median:
    one page fault would move a mean of a hundred runs.
    """
    scale = table.scale
    entries: dict[str, dict[str, float]] = {}
    left_out = []
    for row in table.block_rows():
        name, result = name_of(row.block), row.evidence.result
        if name is None or isinstance(result, str):
            left_out.append(str(row.block))
        else:
            entries[name] = _entry(result, scale)
    return Named(entries, tuple(left_out))


def write(table: LatencyTable, entries: Mapping[str, Mapping[str, float]], path: Path) -> None:
    """Write the entries, with a comment that tells the device. Raises ImportError, OSError."""
    import yaml

    found = table.fingerprint
    device = " ".join(f"{table.device.name!r}: {found.soc}, {found.runtime}, device {found.identity}".split())
    head = f"# From the table of {device}.\n# Milliseconds a run; mean and std without outliers.\n"
    text = yaml.safe_dump({name: dict(entry) for name, entry in entries.items()}, sort_keys=True)
    path.write_text(head + text, encoding="utf-8")


def read(path: Path, name: str, block_of: Callable[[str], Block | None]) -> tuple[Document, tuple[str, ...]]:
    """The file as the table of a device called `name`, and which of its names are no block's.

    Each row quotes the file's mean, std and count under the file's date: there are no runs to look into. The device
    is unknown, and its fingerprint is the file's, so that no measurement of ours is ever added to it.
    Raises ValueError for a file that is something else, ImportError, OSError.
    """
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    measured_at = datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="seconds")
    quoted: dict[Block, Quoted] = {}
    left_out = []
    for key, entry in _entries(content).items():
        latency = _quoted(key, entry)
        block = block_of(key)
        if block is None:
            left_out.append(key)
        elif block in quoted:
            raise ValueError(f"{key!r} and another name are one block, {block}")
        else:
            quoted[block] = latency
    if not quoted:
        raise ValueError(f"none of its {len(left_out)} names is a block of this space, the first {left_out[:1]}")
    fingerprint = Fingerprint(
        soc="unknown", cores=0, isa=(), os="unknown", runtime="unknown", target="unknown", threads=1,
        compiler=f"Once-for-All file {path.name}, sha256 {digest}",
    )  # fmt: skip
    rows = tuple(
        RowEntry(kind="block", visit=0, key=block.key, blocks=(block,), quoted=latency, measured_at=measured_at)
        for block, latency in quoted.items()
    )
    # another `block_of` finds other rows in the same file
    uid = hashlib.sha256(" ".join([digest, *(row.key for row in rows)]).encode()).hexdigest()[:32]
    document = Document(
        uid=digest[:32],
        device=Device(name, target="unknown", runner="recorded", address=path.name),
        fingerprint=fingerprint,
        protocol=_NO_PROTOCOL,
        created_at=measured_at,
        visits=(VisitEntry(uid=uid, fingerprint=fingerprint, protocol=_NO_PROTOCOL, added_at=measured_at),),
        rows=rows,
    )
    return document, tuple(left_out)


def _entries(content: bytes) -> Mapping[Any, Any]:
    import yaml

    # the C parser: a table of Once-for-All has thousands of lines, and pure Python takes a minute for them
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        data = yaml.load(content, Loader=loader)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
    if not isinstance(data, dict) or not data:
        raise ValueError("it is no mapping of names to {mean, std, count}")
    return data


def _quoted(key: Any, entry: Any) -> Quoted:
    if not isinstance(key, str):
        raise ValueError(f"{key!r} is no name")
    try:
        found = _Entry.model_validate(entry)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ValueError(f"{key!r} is {entry!r}: {' '.join(map(str, first['loc']))} {first['msg']}") from None
    return Quoted(found.mean, found.std, found.count)


def _entry(result: Measurement | Quoted, scale: float) -> dict[str, float]:
    if isinstance(result, Quoted):
        held = {"mean": scale * result.mean_ms, "std": result.std_ms and scale * result.std_ms, "count": result.runs}
        return {name: value for name, value in held.items() if value is not None}
    steady = result.steady_ms
    near = np.abs(steady - np.median(steady)) <= 3 * median_abs_deviation(steady, scale="normal")
    kept = scale * steady[near]
    return {"mean": float(kept.mean()), "std": float(kept.std()), "count": len(kept)}
