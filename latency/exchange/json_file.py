"""A latency table as one JSON object."""

from __future__ import annotations

import json
from pathlib import Path

from hwnas.latency.exchange.document import Document, sealed, unsealed


def write(document: Document, path: Path) -> None:
    """Write the document, a row a line so that two tables can be compared line by line."""
    data = sealed(document)
    rows = data.pop("rows")
    head = json.dumps(data, indent=1, ensure_ascii=False)
    lines = ",\n".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in rows)
    path.write_text(f'{head[:-2]},\n "rows": [\n{lines}\n]\n}}\n', encoding="utf-8")


def read(path: Path) -> Document:
    """The document in the file. Raises ValueError, OSError."""
    return unsealed(json.loads(path.read_text(encoding="utf-8")))
