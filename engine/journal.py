"""Every evaluation, once, in a transactional database: resuming and caching are the same look-up."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import Column, Float, MetaData, String, Table, func, select

from hwnas.engine.architecture import Architecture
from hwnas.latency.database import Database, Layout

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


LAYOUT = Layout(METADATA, "journal", "start the search anew", JournalError)


class Journal:
    """Values of architectures by context and metric, in SQLite or PostgreSQL.

    Raises JournalError wherever the database cannot be opened, read or written.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._database = Database(url, create=True, layout=LAYOUT)

    def read(self, context: str, metric: str, architectures: Sequence[Architecture]) -> dict[Architecture, float]:
        """The values that are known, of those asked for."""
        known: dict[Architecture, float] = {}
        with self._database.reading() as connection:
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
        with self._database.writing() as connection:
            # another process may have computed it meanwhile: the first value stays
            self._database.insert_new(connection, EVALUATIONS, [row])

    def count(self) -> int:
        """Evaluations kept."""
        with self._database.reading() as connection:
            return connection.execute(select(func.count()).select_from(EVALUATIONS)).scalar_one()

    def close(self) -> None:
        """Let go of the database."""
        self._database.close()
