"""How SQLite and PostgreSQL are reached, and what their errors mean."""

from __future__ import annotations

import os
import sqlite3
import time
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine.url import URL
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

LOCK_WAIT_S = 60.0  # another builder's transaction takes milliseconds
_CONNECT_S = 15  # a server that is there answers in less, across any network that one would measure over


def as_url(location: str | Path) -> URL:
    """The URL of a path or of URL text; PostgreSQL is spoken to through psycopg 3. Raises ValueError."""
    if isinstance(location, Path) or "://" not in location:
        return URL.create("sqlite", database=str(Path(location).expanduser()))
    try:
        url = make_url(location)
    except (ArgumentError, ValueError):
        # not the text itself, which may hold a password
        raise ValueError(
            "that is no database URL: write a path, sqlite:///PATH or postgresql://USER@HOST:PORT/NAME"
        ) from None
    return url.set(drivername="postgresql+psycopg") if url.drivername in {"postgresql", "postgres"} else url


def engine_of(url: URL, *, create: bool, noun: str, cure: str) -> Engine:
    """The engine of a database in SQLite or PostgreSQL; a SQLite file that is not there is made only by `create`.

    Raises ValueError for another database, a missing driver, a file that is not there or a folder that cannot be made.
    """
    match url.get_backend_name():
        case "sqlite":
            return _sqlite(url, create=create, noun=noun, cure=cure)
        case "postgresql":
            return _postgresql(url)
        case other:
            raise ValueError(
                f"hwnas keeps its {noun}s in SQLite or PostgreSQL, not in {other!r}: "
                "write sqlite:///PATH or postgresql://USER@HOST:PORT/NAME"
            )


def _postgresql(url: URL) -> Engine:
    arguments = {} if "connect_timeout" in url.query else {"connect_timeout": _CONNECT_S}
    try:
        # a build that compiles for an hour finds its idle connection cut by a firewall: look before use
        return create_engine(url, connect_args=arguments, pool_pre_ping=True)
    except ImportError as error:
        raise ValueError(
            f"PostgreSQL needs the driver {error.name or 'psycopg'}, which is not there: pip install 'hwnas[postgres]'"
        ) from None
    except NoSuchModuleError:
        raise ValueError(f"there is no driver {url.drivername!r}: write postgresql://USER@HOST:PORT/NAME") from None


def _sqlite(url: URL, *, create: bool, noun: str, cure: str) -> Engine:
    if not url.database or url.database == ":memory:":
        return create_engine(url)
    path = Path(url.database)
    if create:
        _make_folder(path.parent)
    elif not path.is_file():
        raise ValueError(f"there is no {noun} at {path}: {cure}")
    arguments: dict[str, Any] = {"timeout": LOCK_WAIT_S}
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
    deadline = time.monotonic() + LOCK_WAIT_S
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
        raise ValueError(
            f"cannot make the folder {folder} ({error.strerror}): name a folder you may write to"
        ) from None


def explain(url: URL, said: str, *, noun: str, cure: str) -> str:
    """What a database's own error text means to a person, in one line with the cure; passwords are hidden."""
    name = url.render_as_string(hide_password=True)
    for words, meaning in _MEANINGS:
        if any(word in said for word in words):
            return meaning.format(name=name, said=said, noun=noun, cure=cure, user=url.username, database=url.database)
    return f"{name}: {said}"


# (words in a database's error, what to tell), looked through in this order: a connection that failed says both why
# and that it failed.
_MEANINGS: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("not a database", "malformed"),
        "{name}: damaged or no {noun} ({said}): restore a copy, or move the file away and {cure}",
    ),
    (
        ("unable to open", "readonly", "read-only"),
        "cannot open {name} for writing ({said}): name a folder you may write to",
    ),
    (
        ("locked", "lock timeout"),
        f"{{name}} stayed locked for {LOCK_WAIT_S:g} s: end the process that holds it, or try again",
    ),
    (("disk is full", "No space left"), "{name} cannot grow ({said}): free some space and go on, nothing was lost"),
    (
        ("password authentication failed", "no password supplied", "authentication failed"),
        "{name} refuses the user {user!r} ({said}): put the right password into the URL or into ~/.pgpass",
    ),
    (('role "',), "{name} has no user {user!r} ({said}): name one that it has, or make it with `createuser`"),
    (('database "',), "{name}: the server has no database {database!r}: make it with `createdb {database}`"),
    (("permission denied",), "{name} lets {user!r} do too little ({said}): have its owner GRANT what is missing"),
    (
        ("connection failed", "could not connect", "Connection refused", "timeout expired", "resolve host"),
        "no PostgreSQL server answers at {name} ({said}): start it, or correct host and port",
    ),
    (
        ("server closed the connection", "terminating connection", "connection is lost", "the connection is closed"),
        "{name} went away ({said}): start the server and run the same command again, what was committed is kept",
    ),
)
