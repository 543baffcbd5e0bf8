"""Opens a database, a file or a URL, with transactions that survive a kill and errors in one line."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, MetaData, Table, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.schema import CreateIndex, CreateTable

from hwnas.latency import schema
from hwnas.latency.connections import LOCK_WAIT_S, as_url, engine_of, explain

# Two processes that create the same PostgreSQL tables at once: any number, the same in both.
_CREATING = 0x68776E6173


class TableError(RuntimeError):
    """A latency table that cannot be opened, read or written; the message names it and the cure."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What a database is to hold: its tables, what a person calls them, and how they get there."""

    metadata: MetaData
    noun: str
    cure: str
    error: type[RuntimeError]
    versions: Table | None = None  # holds one row, `version`; None: the layout has no version yet
    version: int | None = None


LATENCY = Layout(
    schema.metadata,
    "latency table",
    "build one with `hwnas table build`",
    TableError,
    schema.schemas,
    schema.SCHEMA_VERSION,
)


class Database:
    """An open database. Reads see whole transactions; writes are all or nothing.

    Raises the layout's error, in one line with the cure, wherever the database cannot be opened, read or written.
    """

    def __init__(self, location: str | Path, *, create: bool, layout: Layout = LATENCY) -> None:
        self._layout = layout
        try:
            self.url = as_url(location)
            self._engine = engine_of(self.url, create=create, noun=layout.noun, cure=layout.cure)
        except ValueError as error:
            raise layout.error(str(error)) from None
        self._name = self.url.render_as_string(hide_password=True)
        try:
            with self._in_one_line():
                self._open(create=create)
        except layout.error:
            self._engine.dispose()
            raise

    def __str__(self) -> str:
        return self._name

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection to read with: all that is read through it is of one moment."""
        # PostgreSQL's default shows each statement a newer moment; SQLite's readers keep theirs
        options = {"isolation_level": "REPEATABLE READ"} if self._is_postgresql else {}
        with self._in_one_line(), self._engine.connect().execution_options(**options) as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction: committed at the end, undone by an exception or a kill."""
        with (
            self._in_one_line(),
            self._engine.connect().execution_options(hwnas_writing=True) as connection,
            connection.begin(),
        ):
            if self._is_postgresql:
                connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_WAIT_S:g}s'")
            yield connection

    def insert_new(self, connection: Connection, table: Table, rows: Sequence[dict[str, Any]]) -> int:
        """Insert the rows that break no uniqueness, in their order; how many they were. All have the same columns."""
        insert = postgresql.insert if self._is_postgresql else sqlite.insert
        # `returning` makes it a few statements of many rows, and counts: psycopg leaves `rowcount` unknown here
        statement = insert(table).on_conflict_do_nothing().returning(*table.primary_key)
        return len(connection.execute(statement, rows).all()) if rows else 0

    @property
    def _is_postgresql(self) -> bool:
        return self._engine.dialect.name == "postgresql"

    def _open(self, *, create: bool) -> None:
        if self._engine.dialect.name == "sqlite":
            with self._engine.connect() as connection:
                verdict = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
            if verdict != "ok":
                raise sqlite3.DatabaseError(f"malformed: {verdict}")
        if create and self._missing():
            self._create()
        if missing := self._missing():
            raise self._layout.error(f"{self._name} holds no {self._layout.noun} ({missing}): {self._layout.cure}")
        self._check_version()

    def _missing(self) -> str:
        """What the database lacks of the layout; empty where it is complete."""
        asked = [self._layout.versions] if self._layout.versions is not None else self._layout.metadata.sorted_tables
        with self._engine.connect() as connection:
            absent = [table.name for table in asked if not self._engine.dialect.has_table(connection, table.name)]
            if not absent and self._layout.versions is not None:
                absent = [] if connection.scalar(select(self._layout.versions)) is not None else ["version"]
        return f"no {absent[0]} in it" if absent else ""

    def _check_version(self) -> None:
        versions, expected = self._layout.versions, self._layout.version
        if versions is None:
            return
        with self._engine.connect() as connection:
            found = connection.scalar(select(versions.c.version))
        if found != expected:
            raise self._layout.error(
                f"{self._name} has layout {found} and this hwnas reads layout {expected}: "
                f"use the hwnas that wrote it, or move it away and {self._layout.cure}"
            )

    def _create(self) -> None:
        with self.writing() as connection:
            if self._is_postgresql:  # its IF NOT EXISTS fails where two sessions create at once
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_CREATING})")
            for table in self._layout.metadata.sorted_tables:
                connection.execute(CreateTable(table, if_not_exists=True))
                for index in table.indexes:
                    connection.execute(CreateIndex(index, if_not_exists=True))
            versions = self._layout.versions
            if versions is not None and connection.scalar(select(versions.c.version)) is None:
                self.insert_new(connection, versions, [{"version": self._layout.version}])

    @contextmanager
    def _in_one_line(self) -> Iterator[None]:
        try:
            yield
        except (DBAPIError, sqlite3.Error, PoolTimeoutError) as error:
            said = " ".join(str(getattr(error, "orig", None) or error).split())
            raise self._layout.error(explain(self.url, said, noun=self._layout.noun, cure=self._layout.cure)) from error
