"""Block -> measurement on one device, in a database that a kill leaves whole."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import pandas as pd
from sqlalchemy import Row, Select, delete, insert, select

from hwnas.devices import Device, DeviceError, Fingerprint, Measurement, Protocol
from hwnas.latency import schema
from hwnas.latency.block import Block
from hwnas.latency.database import Database
from hwnas.latency.rows import (
    FRAME_COLUMNS,
    BlockRow,
    NetworkRole,
    NetworkRow,
    block_columns,
    compact,
    evidence_of,
    frame_line,
    network_columns,
    network_row,
)


class LatencyTable:
    """What was measured on one device. Rows are only ever added, each block and each network once.

    One database holds the tables of many devices, told apart by the devices' names.
    """

    def __init__(self, database: Database, row: Row[Any]) -> None:
        self._database = database
        self._id: int = row.id
        self._identity: str = row.identity
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
            "device": device.name,
            "device_json": compact(device.to_json()),
            "identity": fingerprint.identity,
            "conditions": conditions(protocol),
            "fingerprint": compact(fingerprint.to_json()),
            "protocol": compact(protocol.to_json()),
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
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
        return f"LatencyTable({str(self._database)!r}, device={self.device.name!r})"

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def check_same_device(self, fingerprint: Fingerprint, protocol: Protocol) -> None:
        """Raises DeviceError unless `fingerprint` and `protocol` measure what the rows of this table measure."""
        here, there = fingerprint.identity, self._identity
        if here == there and conditions(protocol) == conditions(self.protocol):
            return
        differing = _differences(self.fingerprint, fingerprint)
        if conditions(protocol) != conditions(self.protocol):
            differing.append(f"protocol {conditions(self.protocol)!r} there, {conditions(protocol)!r} here")
        raise DeviceError(
            f"the table of {self.device.name!r} in {self._database} was measured on device {there}, and this is {here} "
            f"({'; '.join(differing)}): build a table of your own: hwnas table build --device {self.device.name} "
            "--table PATH"
        )

    def add(self, rows: Iterable[BlockRow | NetworkRow], *, fingerprint: Fingerprint, protocol: Protocol) -> int:
        """Add rows measured in one visit to the device, in one transaction; how many were new.

        What the table has already stays as it is. Raises DeviceError for another device, TableError.
        """
        self.check_same_device(fingerprint, protocol)
        rows = list(rows)
        if not rows:
            return 0
        visit = {
            "table_id": self._id,
            "fingerprint": compact(fingerprint.to_json()),
            "protocol": compact(protocol.to_json()),
        }
        with self._database.writing() as connection:
            result = connection.execute(insert(schema.visits).values(visit))
            (visit_id,) = result.inserted_primary_key or (None,)
            common = {"table_id": self._id, "visit_id": visit_id}
            blocks = [{**common, **block_columns(row)} for row in rows if isinstance(row, BlockRow)]
            networks = [{**common, **network_columns(row)} for row in rows if isinstance(row, NetworkRow)]
            added = self._database.insert_new(connection, schema.blocks, blocks)
            return added + self._database.insert_new(connection, schema.networks, networks)

    def measurement(self, block: Block) -> Measurement:
        """What was measured of `block`. Raises LookupError where it has no row or did not run."""
        query = self._query(schema.blocks).where(schema.blocks.c.key == block.key)
        with self._database.reading() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            raise LookupError(
                f"{block} is not in the table of {self.device.name!r}: run `hwnas table build --device "
                f"{self.device.name}`"
            )
        result = evidence_of(row).result
        if isinstance(result, str):
            raise LookupError(f"{block} was tried on {self.device.name!r} and failed: {result}")
        return result

    def block_rows(self) -> list[BlockRow]:
        """Every block with what it gave, in the order of arrival."""
        with self._database.reading() as connection:
            rows = connection.execute(self._query(schema.blocks).order_by(schema.blocks.c.id)).all()
        return [BlockRow(Block.from_json(json.loads(row.block)), evidence_of(row)) for row in rows]

    def latencies_ms(self) -> dict[Block, float]:
        """Latency in ms of every block that ran."""
        return {
            row.block: row.evidence.result.latency_ms
            for row in self.block_rows()
            if isinstance(row.evidence.result, Measurement)
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
        with self._database.reading() as connection:
            return {
                key
                for table in (schema.blocks, schema.networks)
                for key in connection.scalars(select(table.c.key).where(table.c.table_id == self._id))
            }

    def networks(self, role: NetworkRole | None = None) -> list[NetworkRow]:
        """Networks measured end to end, of one role or of both, in the order of arrival, failures included."""
        query = self._query(schema.networks).order_by(schema.networks.c.id)
        if role is not None:
            query = query.where(schema.networks.c.role == role)
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
        return [network_row(row) for row in rows]

    def measured(self, role: NetworkRole | None = None) -> list[tuple[tuple[Block, ...], float]]:
        """(blocks, latency in ms) of every network that ran, as a predictor's `fit` takes them."""
        return [
            (row.blocks, row.evidence.result.latency_ms)
            for row in self.networks(role)
            if isinstance(row.evidence.result, Measurement)
        ]

    def forget_failures(self) -> int:
        """Delete the rows of blocks and networks that failed, so that a build tries them again; how many."""
        with self._database.writing() as connection:
            return sum(
                connection.execute(
                    delete(table).where(table.c.table_id == self._id, table.c.error.is_not(None))
                ).rowcount
                for table in (schema.blocks, schema.networks)
            )

    def to_frame(self) -> pd.DataFrame:
        """One line a block: arguments, shapes, median, 10th percentile and interval in ms, error, provenance."""
        return pd.DataFrame([frame_line(row) for row in self.block_rows()], columns=FRAME_COLUMNS)

    def _query(self, table: Any) -> Select[Any]:
        visits = schema.visits
        joined = table.join(visits, table.c.visit_id == visits.c.id)
        return select(table, visits.c.protocol).select_from(joined).where(table.c.table_id == self._id)


def conditions(protocol: Protocol) -> str:
    """What of a protocol changes the quantity that is measured; the rest changes how well it is known."""
    pinned = "pinned" if protocol.pinned else "free"
    return f"{protocol.threads} thread(s), {pinned}, niceness {protocol.niceness}"


def _differences(there: Fingerprint, here: Fingerprint) -> list[str]:
    fields = ("soc", "cores", "isa", "runtime", "compiler", "target", "threads")
    pairs = [(name, getattr(there, name), getattr(here, name)) for name in fields]
    return [f"{name} {old!r} there, {new!r} here" for name, old, new in pairs if old != new]
