"""Opens the database of a latency table: a file path or a URL, transactions that survive a kill, errors in one line."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Table, create_engine, event, make_url, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine.url import URL
from sqlalchemy.exc import ArgumentError, DatabaseError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.schema import CreateIndex, CreateTable
from sqlalchemy.sql.expression import Executable

from hwnas.latency.schema import SCHEMA_VERSION, metadata, schemas

_LOCK_WAIT_S = 60.0  # another builder's transaction takes milliseconds


class TableError(RuntimeError):
    """A latency table that cannot be opened, read or written; the message names it and the cure."""


class Database:
    """An open database. Reads see whole transactions; writes are all or nothing."""

    def __init__(self, location: str | Path, *, create: bool) -> None:
        self.url = as_url(location)
        self._name = self.url.render_as_string(hide_password=True)
        with self._in_one_line():
            self._engine = _engine(self.url, create=create)
        try:
            with self._in_one_line():
                self._open(create=create)
        except TableError:
            self._engine.dispose()
            raise

    def __str__(self) -> str:
        return self._name

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection to read with. Raises TableError."""
        with self._in_one_line(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction: committed at the end, undone by an exception or a kill. Raises TableError."""
        with (
            self._in_one_line(),
            self._engine.connect().execution_options(hwnas_writing=True) as connection,
            connection.begin(),
        ):
            yield connection

    def insert_new(self, connection: Connection, table: Table, rows: Sequence[dict[str, Any]]) -> int:
        """Insert the rows that break no uniqueness; how many they were."""
        statement = insert_new_statement(table, self._engine.dialect.name)
        return sum(connection.execute(statement, row).rowcount for row in rows)

    def _open(self, *, create: bool) -> None:
        if create:
            self._create()
        if self._engine.dialect.name == "sqlite":
            with self._engine.connect() as connection:
                verdict = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
            if verdict != "ok":
                raise TableError(_damaged(self._name, str(verdict)))
        with self._engine.connect() as connection:
            present = self._engine.dialect.has_table(connection, schemas.name)
            version = connection.scalar(select(schemas.c.version)) if present else None
        if version is None:
            raise TableError(f"{self._name} holds no latency table: build one with `hwnas table build`")
        if version != SCHEMA_VERSION:
            raise TableError(
                f"{self._name} has layout {version} and this hwnas reads layout {SCHEMA_VERSION}: "
                "use the hwnas that wrote it, or build a new table with `hwnas table build`"
            )

    def _create(self) -> None:
        with self.writing() as connection:
            for table in metadata.sorted_tables:
                connection.execute(CreateTable(table, if_not_exists=True))
                for index in table.indexes:
                    connection.execute(CreateIndex(index, if_not_exists=True))
            if connection.scalar(select(schemas.c.version)) is None:
                self.insert_new(connection, schemas, [{"version": SCHEMA_VERSION}])

    @contextmanager
    def _in_one_line(self) -> Iterator[None]:
        try:
            yield
        except (DatabaseError, sqlite3.DatabaseError, PoolTimeoutError) as error:
            raise TableError(_explain(self._name, str(getattr(error, "orig", error)).strip())) from error


def as_url(location: str | Path) -> URL:
    """The URL of a path or of URL text. Raises TableError."""
    if isinstance(location, Path) or "://" not in location:
        return URL.create("sqlite", database=str(Path(location).expanduser()))
    try:
        return make_url(location)
    except ArgumentError:
        raise TableError(f"{location!r} is no database URL: write sqlite:///PATH or postgresql://HOST/NAME") from None


def insert_new_statement(table: Table, dialect: str) -> Executable:
    """INSERT ... ON CONFLICT DO NOTHING. Raises TableError for a database that has no such statement."""
    if dialect == "sqlite":
        return sqlite.insert(table).on_conflict_do_nothing()
    if dialect == "postgresql":
        return postgresql.insert(table).on_conflict_do_nothing()
    raise TableError(f"latency tables live in SQLite or PostgreSQL, not in {dialect!r}: write sqlite:///PATH")


def _engine(url: URL, *, create: bool) -> Engine:
    if url.get_backend_name() != "sqlite" or not url.database or url.database == ":memory:":
        return create_engine(url)
    path = Path(url.database)
    if create:
        _make_folder(path.parent)
    elif not path.is_file():
        raise TableError(f"there is no latency table at {path}: build one with `hwnas table build --table {path}`")
    arguments: dict[str, Any] = {"timeout": _LOCK_WAIT_S}
    if not create and not os.access(path.parent, os.W_OK):
        # a reader of a write-ahead log writes beside it, unless it is told that nobody else writes
        url = url.set(database=f"file:{path}", query={"mode": "ro", "immutable": "1", "uri": "true"})
    engine = create_engine(url, connect_args=arguments)
    event.listen(engine, "connect", partial(_prepare, log=create))
    event.listen(engine, "begin", _begin)
    return engine


def _prepare(connection: Any, _record: Any, *, log: bool) -> None:
    connection.isolation_level = None  # transactions begin where `_begin` says
    if log:
        _use_write_ahead_log(connection)
    # in write-ahead mode NORMAL loses nothing to a killed process, only to a power cut, and never tears a transaction
    connection.execute("PRAGMA synchronous=NORMAL")


def _use_write_ahead_log(connection: Any) -> None:
    """Readers then never wait for a builder; the mode stays with the file."""
    deadline = time.monotonic() + _LOCK_WAIT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            # SQLite does not wait for locks here, and two builders may begin together
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _begin(connection: Connection) -> None:
    # a transaction that begins as a reader cannot wait for its turn to write
    writing = connection.get_execution_options().get("hwnas_writing", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TableError(
            f"cannot make the folder {folder} ({error.strerror}): name a folder you may write to"
        ) from None


def _explain(name: str, said: str) -> str:
    if "not a database" in said or "malformed" in said:
        return _damaged(name, said)
    if "unable to open" in said or "readonly" in said:
        return f"cannot open {name} for writing ({said}): name a folder you may write to"
    if "locked" in said:
        return f"{name} stayed locked for {_LOCK_WAIT_S:g} s: end the process that holds it, or try again"
    return f"{name}: {said}"


def _damaged(name: str, said: str) -> str:
    return (
        f"{name} is damaged or no latency table ({said}): "
        "restore a copy, or move it away and build again with `hwnas table build`"
    )
