"""Latency tables as files: Parquet and JSON without loss, and the lookup tables of Once-for-All."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol as Role

from hwnas.latency.block import Block
from hwnas.latency.database import Database, TableError
from hwnas.latency.exchange import json_file, once_for_all, parquet_file
from hwnas.latency.exchange.document import Document
from hwnas.latency.exchange.files import complaining, replacing
from hwnas.latency.exchange.transfer import Imported, document_of, store
from hwnas.latency.table import LatencyTable

__all__ = ["Exported", "Imported", "export_table", "import_table"]

BlockOf = Callable[[str], Block | None]
NameOf = Callable[[Block], str | None]


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written: `rows` of the table, and what of it the format has no place for."""

    rows: int
    left_out: tuple[str, ...] = ()


class _Lossless(Role):
    """A file format that holds a whole table."""

    def write(self, document: Document, path: Path) -> None: ...

    def read(self, path: Path) -> Document: ...


_LOSSLESS: dict[str, _Lossless] = {".parquet": parquet_file, ".json": json_file}
_ONCE_FOR_ALL = frozenset({".yaml", ".yml"})


def export_table(table: LatencyTable, path: str | Path, *, name_of: NameOf | None = None) -> Exported:
    """Write a table to a file whose suffix tells the format; a file of that name is replaced whole, or stays.

    `.parquet` and `.json` hold everything, attempts that count no more included. `.yaml` is a lookup table of
    Once-for-All: mean, std and count of each block that `name_of` gives a name there.
    Raises TableError for another suffix, a folder that cannot be written, or YAML without `name_of`.
    """
    path = Path(path)
    form = _format(path)
    if form is None:
        if name_of is None:
            raise TableError(f"{path}: Once-for-All names blocks in its own way: pass name_of=, or write .json")
        named = once_for_all.named(table, name_of)
        with complaining(path), replacing(path) as part:
            once_for_all.write(table, named.entries, part)
        return Exported(len(named.entries), named.left_out)
    document = document_of(table)
    with complaining(path), replacing(path) as part:
        form.write(document, part)
    return Exported(len(document.rows))


def import_table(
    path: str | Path, location: str | Path, *, name: str | None = None, block_of: BlockOf | None = None
) -> Imported:
    """Add the table in a file to the database at `location`, in one transaction; what is there already stays.

    `name` is what the device is called there, by default what it is called in the file; Once-for-All's `.yaml` needs
    one, and `block_of`, which turns its names into blocks (None for what has no equivalent).
    Nothing of the file is executed: a block whose factory is not installed is kept, and is refused when it is built.
    Raises TableError for a file that is damaged or no table, and where the database has another table of that name.
    """
    path = Path(path)
    form = _format(path)
    left_out: tuple[str, ...] = ()
    with complaining(path):
        if form is not None:
            document = form.read(path)
        elif name is None or block_of is None:
            raise TableError(f"{path}: a lookup table of Once-for-All names no device: pass name= and block_of=")
        else:
            document, left_out = once_for_all.read(path, name, block_of)
    database = Database(location, create=True)
    try:
        return store(document, database, name=name, left_out=left_out)
    finally:
        database.close()


def _format(path: Path) -> _Lossless | None:
    """None for Once-for-All. Raises TableError."""
    suffix = path.suffix.lower()
    if suffix in _ONCE_FOR_ALL:
        return None
    if suffix not in _LOSSLESS:
        known = ", ".join(sorted({*_LOSSLESS, *_ONCE_FOR_ALL}))
        raise TableError(f"{path}: no table format ends in {suffix!r}: choose one of {known}")
    return _LOSSLESS[suffix]
