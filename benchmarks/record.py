"""What every benchmark leaves behind: a table for a person and a JSON file with what is needed to judge it."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("hwnas", "torch", "apache-tvm", "apache-tvm-ffi", "onnxruntime", "numpy", "pymoo")

Cell = str | int | float | bool | None
Row = Mapping[str, Cell]


def record(
    name: str,
    rows: Sequence[Row],
    *,
    title: str,
    seeds: Sequence[int] = (),
    notes: Mapping[str, object] | None = None,
    shown: Sequence[str] = (),
    folder: Path = RESULTS,
) -> Path:
    """Print `rows` (all with the columns of the first) and write them to `folder`/`name`.json; `notes` go there too.

    `shown` names the columns to print, all of them when it is empty; all are written.
    """
    _print(rows, title, shown)
    fields = {
        "name": name,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": machine(),
        "python": platform.python_version(),
        "packages": {package: found for package in PACKAGES if (found := _version(package)) is not None},
        "seeds": list(seeds),
        "notes": dict(notes or {}),
        "rows": [dict(row) for row in rows],
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(fields, indent=2) + "\n")
    return path


def machine() -> dict[str, object]:
    """Model, cores, operating system and load of the last minute."""
    return {"cpu": _cpu(), "cores": os.cpu_count(), "os": platform.platform(), "load_1m": round(os.getloadavg()[0], 2)}


def _cpu() -> str:
    listing = Path("/proc/cpuinfo")
    for line in listing.read_text().splitlines() if listing.exists() else []:
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model"):
            return value.strip()
    return platform.processor() or platform.machine()


def _commit() -> str:
    """The commit, with a mark where the tree differs from it."""
    root = Path(__file__).parent
    describe = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    found = subprocess.run(describe, cwd=root, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _print(rows: Sequence[Row], title: str, shown: Sequence[str]) -> None:
    table = Table(title=title)
    columns = list(shown) or (list(rows[0]) if rows else [])
    for column in columns:
        numeric = bool(rows) and isinstance(rows[0][column], int | float)
        table.add_column(column, justify="right" if numeric else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(_text(row[column]) for column in columns))
    console = Console()
    # a log has no width of its own: let the table have what it needs
    (console if console.is_terminal else Console(width=200)).print(table)


def _text(cell: Cell) -> str:
    return f"{cell:.3g}" if isinstance(cell, float) else str(cell)
