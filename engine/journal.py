"""Every evaluation, once, in a transactional database: resuming and caching are the same look-up."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Column, Float, MetaData, String, Table, create_engine, event, select
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DatabaseError, OperationalError

from hwnas.engine.architecture import Architecture
from hwnas.latency.database import insert_new_statement

METADATA = MetaData()
EVALUATIONS = Table(
    "evaluations",
    METADATA,
    Column("context", String(200), primary_key=True),  # what the value depends on beside the architecture
    Column("metric", String(40), primary_key=True),
    Column("architecture", String(2000), primary_key=True),  # option indices, a JSON list
    Column("value", Float(53), nullable=False),
    Column("evaluated_at", String(40), nullable=False),
)


class JournalError(RuntimeError):
    """A journal that cannot be read or written."""


class Journal:
    """Values of architectures by context and metric."""

    def __init__(self, url: str) -> None:
        self.url = url
        try:
            self._engine = _open(url)
            METADATA.create_all(self._engine)
        except (OperationalError, DatabaseError, OSError) as error:
            reason = str(getattr(error, "orig", None) or error)
            raise JournalError(
                f"{url}: cannot be used as a journal ({reason}): give a writable folder, or move the file away"
            ) from error

    def read(self, context: str, metric: str, architectures: Sequence[Architecture]) -> dict[Architecture, float]:
        """The values that are known, of those asked for."""
        known: dict[Architecture, float] = {}
        with self._engine.connect() as connection:
            for start in range(0, len(architectures), 500):  # SQLite allows 32,766 parameters a statement
                keys = [json.dumps(a) for a in architectures[start : start + 500]]
                query = select(EVALUATIONS.c.architecture, EVALUATIONS.c.value).where(
                    EVALUATIONS.c.context == context,
                    EVALUATIONS.c.metric == metric,
                    EVALUATIONS.c.architecture.in_(keys),
                )
                known.update({tuple(json.loads(key)): value for key, value in connection.execute(query)})
        return known

    def write(self, context: str, metric: str, architecture: Architecture, value: float) -> None:
        """Keep one value, durably before this returns."""
        row = {
            "context": context,
            "metric": metric,
            "architecture": json.dumps(architecture),
            "value": value,
            "evaluated_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        with self._engine.begin() as connection:
            # another process may have computed it meanwhile: the first value stays
            connection.execute(insert_new_statement(EVALUATIONS, self._engine.dialect.name), row)

    def count(self) -> int:
        """Evaluations kept."""
        with self._engine.connect() as connection:
            return len(connection.execute(select(EVALUATIONS.c.metric)).all())

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()


def _open(url: str) -> Engine:
    engine = create_engine(url)
    if engine.dialect.name == "sqlite":
        database = engine.url.database
        if database:
            Path(database).parent.mkdir(parents=True, exist_ok=True)

        @event.listens_for(engine, "connect")
        def _settings(connection: object, _: object) -> None:
            cursor = connection.cursor()  # type: ignore[attr-defined]  # a DBAPI connection
            cursor.execute("PRAGMA journal_mode=WAL")  # a killed writer loses nothing that was committed
            cursor.execute("PRAGMA synchronous=NORMAL")
            cursor.execute("PRAGMA busy_timeout=30000")
            cursor.close()

    return engine
