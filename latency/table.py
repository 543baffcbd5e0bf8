"""Block -> measurement on one device, in a database that a kill leaves whole."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import pandas as pd
from sqlalchemy import Connection, Row, Select, Table, insert, select, update

from hwnas.devices import Device, DeviceError, Fingerprint, Measurement, Protocol
from hwnas.latency import frame, schema
from hwnas.latency.block import Block
from hwnas.latency.database import Database
from hwnas.latency.rows import (
    BlockRow,
    DriftCheck,
    NetworkRole,
    NetworkRow,
    Visit,
    block_columns,
    block_row,
    check_columns,
    check_of,
    compact,
    evidence_of,
    network_columns,
    network_row,
    now,
    run_columns,
    visit_of,
)

_KEYS_A_STATEMENT = 1000  # SQLite allows 32,766 parameters


class LatencyTable:
    """What was measured on one device. Rows are only ever added; of each block and each network one counts.

    Latencies are those that the device had in the table's first visit: what was measured in a later one is divided
    by the speed of its anchors. `latencies_ms` and `measured` also multiply by `scale`, the speed that the device has
    now. One database holds the tables of many devices, told apart by the devices' names.
    """

    def __init__(self, database: Database, row: Row[Any]) -> None:
        self.database = database
        self.id: int = row.id
        self.identity: str = row.identity
        self.device = Device.from_json(json.loads(row.device_json))
        self.fingerprint = Fingerprint.from_json(json.loads(row.fingerprint))
        self.protocol = Protocol.from_json(json.loads(row.protocol))

    @classmethod
    def open(cls, location: str | Path, *, device: str | None = None) -> Self:
        """The table of the device called `device`, to read; its name may be left out where there is one table.

        Raises TableError where there is none, DeviceError for a device that has no table here.
        """
        database = Database(location, create=False)
        with database.reading() as connection:
            rows = {row.device: row for row in connection.execute(select(schema.tables))}
        if device is None and len(rows) == 1:
            device = next(iter(rows))
        if device is None or device not in rows:
            database.close()
            asked = "name one with device=" if device is None else f"{device!r} is not among them: `hwnas table build`"
            raise DeviceError(f"{database} holds the tables of {', '.join(sorted(rows)) or 'no device'}: {asked}")
        return cls(database, rows[device])

    @classmethod
    def open_for(cls, location: str | Path, device: Device, *, fingerprint: Fingerprint, protocol: Protocol) -> Self:
        """The table of `device`, to add to; begun where there is none.

        Raises DeviceError where the table was measured on something else than `fingerprint` says, TableError where
        the database cannot be written.
        """
        database = Database(location, create=True)
        fresh = {
            "uid": uuid4().hex,
            "device": device.name,
            "device_json": compact(device.to_json()),
            "identity": fingerprint.identity,
            "conditions": conditions(protocol),
            "fingerprint": compact(fingerprint.to_json()),
            "protocol": compact(protocol.to_json()),
            "created_at": now(),
        }
        with database.writing() as connection:
            database.insert_new(connection, schema.tables, [fresh])
            row = connection.execute(select(schema.tables).where(schema.tables.c.device == device.name)).one()
        table = cls(database, row)
        try:
            table.check_same_device(fingerprint, protocol)
        except DeviceError:
            table.close()
            raise
        return table

    def __repr__(self) -> str:
        return f"LatencyTable({str(self.database)!r}, device={self.device.name!r})"

    def close(self) -> None:
        """Close the database."""
        self.database.close()

    def check_same_device(self, fingerprint: Fingerprint, protocol: Protocol) -> None:
        """Raises DeviceError unless `fingerprint` and `protocol` measure what the rows of this table measure."""
        here, there = fingerprint.identity, self.identity
        if here == there and conditions(protocol) == conditions(self.protocol):
            return
        differing = _differences(self.fingerprint, fingerprint)
        if conditions(protocol) != conditions(self.protocol):
            differing.append(f"protocol {conditions(self.protocol)!r} there, {conditions(protocol)!r} here")
        raise DeviceError(
            f"the table of {self.device.name!r} in {self.database} was measured on device {there}, and this is {here} "
            f"({'; '.join(differing)}): build a table of your own: hwnas table build --device {self.device.name} "
            "--table PATH"
        )

    def add(
        self,
        rows: Iterable[BlockRow | NetworkRow],
        *,
        fingerprint: Fingerprint,
        protocol: Protocol,
        after: Fingerprint | None = None,
        speed: float | None = None,
        anchors: Sequence[tuple[str, Measurement]] = (),
    ) -> int:
        """Add rows measured in one visit to the device, in one transaction; how many were new.

        `after` is the state that the visit left the device in; `anchors` are (key of a block or network, what it took
        in this visit), and `speed` is the time that they took over what they took in the first visit.
        What the table has already stays as it is, but a failure gives way to a success.
        Raises DeviceError for another device, ValueError for a speed that is not positive, TableError.
        """
        for state in (fingerprint, after or fingerprint):
            self.check_same_device(state, protocol)
        if speed is not None and not 0 < speed < float("inf"):
            raise ValueError(f"a speed of {speed}: it is a ratio of times, above 0")
        rows = list(rows)
        if not rows and not anchors:
            return 0
        visit = {
            "uid": uuid4().hex,
            "table_id": self.id,
            "fingerprint": compact(fingerprint.to_json()),
            "fingerprint_after": compact(after.to_json()) if after else None,
            "protocol": compact(protocol.to_json()),
            "speed": speed,
            "added_at": now(),
        }
        with self.database.writing() as connection:
            lock(connection, self.id)
            result = connection.execute(insert(schema.visits).values(visit))
            (visit_id,) = result.inserted_primary_key or (None,)
            common = {"table_id": self.id, "visit_id": visit_id}
            if anchors:
                connection.execute(insert(schema.anchors), [{**common, **run_columns(*anchor)} for anchor in anchors])
            blocks = [{**common, **block_columns(row)} for row in rows if isinstance(row, BlockRow)]
            networks = [{**common, **network_columns(row)} for row in rows if isinstance(row, NetworkRow)]
            added = insert_counting(self.database, connection, schema.blocks, blocks)
            return added + insert_counting(self.database, connection, schema.networks, networks)

    def measurement(self, block: Block) -> Measurement:
        """What was measured of `block`. Raises LookupError where it has no row or did not run."""
        query = self._query(schema.blocks).where(schema.blocks.c.key == block.key)
        with self.database.reading() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            raise LookupError(
                f"{block} is not in the table of {self.device.name!r}: run `hwnas table build --device "
                f"{self.device.name}`"
            )
        result = evidence_of(row).result
        if isinstance(result, str):
            raise LookupError(f"{block} was tried on {self.device.name!r} and failed: {result}")
        if not isinstance(result, Measurement):
            raise LookupError(f"{block} has a latency and no runs: it was imported from a file that keeps none")
        return result

    def block_rows(self) -> list[BlockRow]:
        """Every block with what it gave, in the order of arrival."""
        with self.database.reading() as connection:
            rows = connection.execute(self._query(schema.blocks).order_by(schema.blocks.c.id)).all()
        return [block_row(row) for row in rows]

    def latencies_ms(self) -> dict[Block, float]:
        """Latency in ms of every block that ran, at the speed that the device has now."""
        scale = self.scale
        return {
            row.block: scale * row.evidence.result.latency_ms
            for row in self.block_rows()
            if not isinstance(row.evidence.result, str)
        }

    def failures(self) -> dict[Block, str]:
        """Why each block that did not compile or run has no latency."""
        return {row.block: row.evidence.result for row in self.block_rows() if isinstance(row.evidence.result, str)}

    def missing(self, blocks: Iterable[Block]) -> list[Block]:
        """The blocks that nobody has tried yet, each once, in the given order; a failure has been tried."""
        present = self.keys()
        return [block for block in dict.fromkeys(blocks) if block.key not in present]

    def keys(self) -> set[str]:
        """Keys of every block and every network that was tried."""
        with self.database.reading() as connection:
            return {
                key
                for table in (schema.blocks, schema.networks)
                for key in connection.scalars(self._counting(select(table.c.key), table))
            }

    def networks(self, role: NetworkRole | None = None) -> list[NetworkRow]:
        """Networks measured end to end, of one role or of both, in the order of arrival, failures included."""
        query = self._query(schema.networks).order_by(schema.networks.c.id)
        if role is not None:
            query = query.where(schema.networks.c.role == role)
        with self.database.reading() as connection:
            rows = connection.execute(query).all()
        return [network_row(row) for row in rows]

    def measured(self, role: NetworkRole | None = None) -> list[tuple[tuple[Block, ...], float]]:
        """(blocks, latency in ms now) of every network that ran, as a predictor's `fit` takes them."""
        scale = self.scale
        return [
            (row.blocks, scale * row.evidence.result.latency_ms)
            for row in self.networks(role)
            if not isinstance(row.evidence.result, str)
        ]

    def first_visit_rows(self) -> list[BlockRow | NetworkRow]:
        """What ran in the first visit in which something did and whose artefact is known: the anchors of later visits.

        Blocks first, then networks, each in the order of arrival.
        """
        found: list[tuple[int, BlockRow | NetworkRow]] = []
        with self.database.reading() as connection:
            for table, row_of in ((schema.blocks, block_row), (schema.networks, network_row)):
                ran = self._query(table).where(table.c.runs_ms.is_not(None), table.c.artefact.is_not(None))
                found += [(row.visit_id, row_of(row)) for row in connection.execute(ran.order_by(table.c.id))]
        first = min((visit for visit, _ in found), default=None)
        return [row for visit, row in found if visit == first]

    def visits(self) -> list[Visit]:
        """Every visit to the device with its anchors, in order."""
        visits, anchors = schema.visits, schema.anchors
        joined = select(anchors, visits.c.protocol).join(visits).where(anchors.c.table_id == self.id)
        with self.database.reading() as connection:
            rows = connection.execute(select(visits).where(visits.c.table_id == self.id).order_by(visits.c.id)).all()
            timed = connection.execute(joined.order_by(anchors.c.visit_id, anchors.c.id)).all()
        by_visit = {visit: list(group) for visit, group in groupby(timed, lambda row: row.visit_id)}
        return [visit_of(row, by_visit.get(row.id, [])) for row in rows]

    def note_check(self, check: DriftCheck) -> None:
        """Keep a look at the device's speed; an accepted one rescales the table. Raises TableError."""
        columns = {"uid": uuid4().hex, "table_id": self.id, **check_columns(check)}
        with self.database.writing() as connection:
            connection.execute(insert(schema.checks).values(columns))

    def checks(self) -> list[DriftCheck]:
        """Every drift check, in order."""
        query = select(schema.checks).where(schema.checks.c.table_id == self.id).order_by(schema.checks.c.id)
        with self.database.reading() as connection:
            return [check_of(row) for row in connection.execute(query)]

    @property
    def scale(self) -> float:
        """Speed of the latest accepted check: what the device takes now over what it took; 1 where there is none."""
        accepted = [check.speed for check in self.checks() if check.accepted]
        return accepted[-1] if accepted else 1.0

    @property
    def modelled(self) -> bool:
        """Whether a formula gave the latencies instead of a device."""
        return self.fingerprint.modelled

    def forget_failures(self) -> int:
        """Let blocks and networks that failed be tried again; how many. Their rows stay, and count no more."""
        with self.database.writing() as connection:
            lock(connection, self.id)
            return sum(
                connection.execute(
                    update(table)
                    .where(table.c.table_id == self.id, table.c.superseded_at.is_(None), table.c.error.is_not(None))
                    .values(superseded_at=now())
                ).rowcount
                for table in (schema.blocks, schema.networks)
            )

    def superseded(self) -> list[BlockRow | NetworkRow]:
        """Attempts that no longer count, blocks first, each in the order of arrival."""
        rows: list[BlockRow | NetworkRow] = []
        with self.database.reading() as connection:
            for table, row_of in ((schema.blocks, block_row), (schema.networks, network_row)):
                query = self._joined(table).where(table.c.superseded_at.is_not(None)).order_by(table.c.id)
                rows += [row_of(row) for row in connection.execute(query)]
        return rows

    def to_frame(self) -> pd.DataFrame:
        """One line a block: arguments, shapes, median, percentiles and interval in ms, error, provenance."""
        return frame.to_frame(self.block_rows())

    def _query(self, table: Table) -> Select[Any]:
        return self._joined(table).where(table.c.superseded_at.is_(None))

    def _joined(self, table: Table) -> Select[Any]:
        visits = schema.visits
        joined = table.join(visits, table.c.visit_id == visits.c.id)
        return select(table, visits.c.protocol, visits.c.speed).select_from(joined).where(table.c.table_id == self.id)

    def _counting(self, query: Select[Any], table: Table) -> Select[Any]:
        return query.where(table.c.table_id == self.id, table.c.superseded_at.is_(None))


def lock(connection: Connection, table_id: int) -> None:
    """Make other writers of this latency table wait for the end of the transaction.

    Two builders that insert the same keys in another order would wait for each other. SQLite has one writer anyway.
    """
    connection.execute(select(schema.tables.c.id).where(schema.tables.c.id == table_id).with_for_update())


def insert_counting(database: Database, connection: Connection, table: Table, rows: Sequence[dict[str, Any]]) -> int:
    """Insert rows into `blocks` or `networks` under a `lock`; how many were new.

    What counts already stays, but a failure gives way to a success.
    """
    succeeded = [row["key"] for row in rows if row["error"] is None and row.get("superseded_at") is None]
    for start in range(0, len(succeeded), _KEYS_A_STATEMENT):
        keys = table.c.key.in_(succeeded[start : start + _KEYS_A_STATEMENT])
        failed = (table.c.table_id == rows[0]["table_id"], table.c.superseded_at.is_(None), table.c.error.is_not(None))
        connection.execute(update(table).where(*failed, keys).values(superseded_at=now()))
    return database.insert_new(connection, table, rows)


def conditions(protocol: Protocol) -> str:
    """What of a protocol changes the quantity that is measured; the rest changes how well it is known."""
    pinned = "pinned" if protocol.pinned else "free"
    return f"{protocol.threads} thread(s), {pinned}, niceness {protocol.niceness}, caches {protocol.cache}"


def _differences(there: Fingerprint, here: Fingerprint) -> list[str]:
    fields = ("soc", "cores", "isa", "runtime", "compiler", "target", "threads")
    pairs = [(name, getattr(there, name), getattr(here, name)) for name in fields]
    return [f"{name} {old!r} there, {new!r} here" for name, old, new in pairs if old != new]
