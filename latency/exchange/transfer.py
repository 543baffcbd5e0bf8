"""From the database to a document and back, in one transaction."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from sqlalchemy import Connection, Row, Table, insert, select, update

from hwnas.devices import Device, Fingerprint, Protocol
from hwnas.latency import schema
from hwnas.latency.database import Database, TableError
from hwnas.latency.exchange.document import CheckEntry, Document, RowEntry, VisitEntry
from hwnas.latency.rows import compact
from hwnas.latency.table import LatencyTable, conditions, insert_counting, lock

_KINDS: dict[str, Table] = {"block": schema.blocks, "network": schema.networks, "anchor": schema.anchors}
# columns that hold JSON text
_JSON = frozenset({"fingerprint", "fingerprint_after", "protocol", "runs_ms", "drift", "quoted"})
_COMMON = ("key", "runs_ms", "drift", "energy_mj", "measured_at")
_EVIDENCE = (*_COMMON, "error", "quoted", "artefact", "compile_cpu_s", "superseded_at")


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import added to the table of `device`: new rows and visits; names that no block answers to."""

    device: str
    rows: int
    visits: int
    left_out: tuple[str, ...] = ()


def document_of(table: LatencyTable) -> Document:
    """Everything in the database about one table, as of one moment. Raises TableError."""
    with table.database.reading() as connection:
        head = connection.execute(select(schema.tables).where(schema.tables.c.id == table.id)).one()
        visits, checks = (
            connection.execute(select(kind).where(kind.c.table_id == table.id).order_by(kind.c.id)).all()
            for kind in (schema.visits, schema.checks)
        )
        place = {visit.id: index for index, visit in enumerate(visits)}
        rows = [
            _row_entry(name, row, place[row.visit_id])
            for name, kind in _KINDS.items()
            for row in connection.execute(select(kind).where(kind.c.table_id == table.id).order_by(kind.c.id))
        ]
    return Document(
        uid=head.uid,
        device=Device.from_json(json.loads(head.device_json)),
        fingerprint=Fingerprint.from_json(json.loads(head.fingerprint)),
        protocol=Protocol.from_json(json.loads(head.protocol)),
        created_at=head.created_at,
        visits=tuple(VisitEntry.model_validate(_values(visit, VisitEntry.model_fields)) for visit in visits),
        checks=tuple(CheckEntry.model_validate(_values(check, CheckEntry.model_fields)) for check in checks),
        rows=tuple(rows),
    )


def store(document: Document, database: Database, *, name: str | None, left_out: tuple[str, ...] = ()) -> Imported:
    """Add to the database what it lacks of the document. Raises TableError, and then nothing was added."""
    device = replace(document.device, name=name or document.device.name)
    with database.writing() as connection:
        table_id = _table_id(document, device, database, connection)
        visits = rows = 0
        entries: dict[int, list[RowEntry]] = {}
        for row in document.rows:
            entries.setdefault(row.visit, []).append(row)
        for index, visit in enumerate(document.visits):
            known = select(schema.visits.c.id).where(
                schema.visits.c.uid == visit.uid, schema.visits.c.table_id == table_id
            )
            visit_id = connection.scalar(known)
            if visit_id is None:
                visit_id = _insert_visit(connection, table_id, visit)
                visits += 1
                rows += _insert_rows(database, connection, entries.get(index, ()), table_id, visit_id)
            else:
                _supersede(connection, entries.get(index, ()), visit_id)
        checks = [{**_columns(check), "table_id": table_id} for check in document.checks]
        database.insert_new(connection, schema.checks, checks)
    return Imported(device.name, rows, visits, left_out)


def _table_id(document: Document, device: Device, database: Database, connection: Connection) -> int:
    fresh = {
        "uid": document.uid,
        "device": device.name,
        "device_json": compact(device.to_json()),
        "identity": document.fingerprint.identity,
        "conditions": conditions(document.protocol),
        "fingerprint": compact(document.fingerprint.to_json()),
        "protocol": compact(document.protocol.to_json()),
        "created_at": document.created_at,
    }
    database.insert_new(connection, schema.tables, [fresh])
    tables = schema.tables
    found = connection.execute(select(tables.c.id, tables.c.uid, tables.c.device).where(tables.c.device == device.name))
    row = found.one_or_none()
    if row is None:
        held = connection.scalar(select(tables.c.device).where(tables.c.uid == document.uid))
        raise TableError(f"{database} has this table already, under the name {held!r}: import it under that name")
    if row.uid != document.uid:
        raise TableError(
            f"{database} has another table of {device.name!r}, begun by a visit of its own: "
            "import under another name, or into another database"
        )
    table_id: int = row.id
    lock(connection, table_id)
    return table_id


def _insert_visit(connection: Connection, table_id: int, visit: VisitEntry) -> int:
    result = connection.execute(insert(schema.visits).values(table_id=table_id, **_columns(visit)))
    (visit_id,) = result.inserted_primary_key or (0,)
    return int(visit_id)


def _insert_rows(
    database: Database, connection: Connection, entries: Sequence[RowEntry], table_id: int, visit_id: int
) -> int:
    added = 0
    for kind, table in _KINDS.items():
        rows = [
            {**_row_columns(entry), "table_id": table_id, "visit_id": visit_id}
            for entry in entries
            if entry.kind == kind
        ]
        insert_rows = database.insert_new if kind == "anchor" else partial(insert_counting, database)
        added += insert_rows(connection, table, rows)
    return added


def _supersede(connection: Connection, entries: Iterable[RowEntry], visit_id: int) -> None:
    """What counted when the visit was imported first may have been tried again since."""
    for entry in entries:
        if entry.superseded_at is not None:
            table = _KINDS[entry.kind]
            own = (table.c.visit_id == visit_id, table.c.key == entry.key, table.c.superseded_at.is_(None))
            connection.execute(update(table).where(*own).values(superseded_at=entry.superseded_at))


def _row_entry(kind: str, row: Row[Any], visit: int) -> RowEntry:
    values: dict[str, Any] = {"kind": kind, "visit": visit}
    match kind:
        case "block":
            values |= {**_values(row, _EVIDENCE), "blocks": [json.loads(row.block)]}
        case "network":
            values |= {**_values(row, _EVIDENCE), "blocks": json.loads(row.blocks)}
            values |= {"label": row.label, "role": row.role}
        case _:
            values |= _values(row, _COMMON)
    return RowEntry.model_validate(values)


def _row_columns(entry: RowEntry) -> dict[str, Any]:
    columns = {
        name: _written(name, getattr(entry, name)) for name in (_COMMON if entry.kind == "anchor" else _EVIDENCE)
    }
    blocks = [block.to_json() for block in entry.blocks]
    match entry.kind:
        case "block":
            return {**columns, "block": compact(blocks[0])}
        case "network":
            return {**columns, "label": entry.label, "role": entry.role, "blocks": compact(blocks)}
        case _:
            return columns


def _columns(entry: VisitEntry | CheckEntry) -> dict[str, Any]:
    return {name: _written(name, getattr(entry, name)) for name in type(entry).model_fields}


def _values(row: Row[Any], names: Iterable[str]) -> dict[str, Any]:
    """Columns of a stored row as plain values."""
    stored = row._mapping
    return {
        name: json.loads(stored[name]) if name in _JSON and stored[name] is not None else stored[name] for name in names
    }


def _written(name: str, value: Any) -> Any:
    """The value of a column; fingerprints, protocols and quoted latencies as their JSON text."""
    if name not in _JSON or value is None:
        return value
    if isinstance(value, Fingerprint | Protocol):
        return compact(value.to_json())
    return compact(value if isinstance(value, tuple) else asdict(value))
