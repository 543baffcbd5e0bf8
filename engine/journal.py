"""Every evaluation, once, in a transactional database: resuming and caching are the same look-up.

Beside the evaluations lie the searches that asked for them, round by round: `record.py` writes and reads those.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
from sqlalchemy import Boolean, Column, Float, Integer, MetaData, String, Table, Text, func, select

from hwnas.engine.architecture import Architecture, FloatArray, IntArray
from hwnas.engine.objective import Objective
from hwnas.latency.database import Database, Layout

# Raised with every change that an older reader would misread. Journals before 2 have no number: they hold
# `evaluations` as it still is, and get the other tables when they are opened.
SCHEMA_VERSION = 2

METADATA = MetaData()
SCHEMAS = Table("hwnas_journal_schema", METADATA, Column("version", Integer, primary_key=True))

EVALUATIONS = Table(
    "evaluations",
    METADATA,
    Column("context", String(200), primary_key=True),  # what the value depends on beside the architecture
    Column("metric", String(40), primary_key=True),
    Column("architecture", String(2000), primary_key=True),  # option indices, a JSON list
    Column("value", Float(53), nullable=False),
    Column("evaluated_at", String(40), nullable=False),
)

SEARCHES = Table(
    "searches",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("digest", String(64), nullable=False, unique=True),  # of the settings
    Column("settings", Text, nullable=False),  # JSON: all that decides what is asked and what it costs
    Column("made_by", Text, nullable=False),  # JSON: versions of what computed it
    Column("begun_at", String(40), nullable=False),
)


def _place() -> list[Column[int]]:
    """A candidate's place: row of a round of a search. Round 0 holds what was told before anything was asked."""
    # no foreign keys: PostgreSQL would look each up, 10,000 a second and more, in a table of one row
    return [Column(name, Integer, primary_key=True, autoincrement=False) for name in ("search", "round", "row")]


# Without row numbers of their own these are one tree each in SQLite, not two.
ASKS = Table("asks", METADATA, *_place(), Column("architecture", Text, nullable=False), sqlite_with_rowid=False)

OUTCOMES = Table(
    "outcomes",
    METADATA,
    *_place(),
    Column("costs", Text),  # JSON list, one an objective; null where the candidate breaks a limit
    Column("violation", Float(53), nullable=False),
    Column("worker", String(32)),  # who evaluated it; null where a round was computed at once
    Column("kept_at", String(40), nullable=False),
    sqlite_with_rowid=False,
)

TELLS = Table(
    "tells",
    METADATA,
    Column("search", Integer, primary_key=True, autoincrement=False),
    Column("round", Integer, primary_key=True, autoincrement=False),
    Column("rows", Integer, primary_key=True, autoincrement=False),  # fewer in the last round of a small budget
    Column("history", String(64), nullable=False),  # digest of all that was told up to here
    Column("told_at", String(40), nullable=False),
)

# The only rows that change: `beats` while the worker works, `has_left` when it goes.
WORKERS = Table(
    "workers",
    METADATA,
    Column("id", String(32), primary_key=True),
    Column("search", Integer, nullable=False, index=True),
    Column("machine", String(200), nullable=False),  # within which a process number means one process
    Column("process", Integer, nullable=False),
    Column("started", String(40), nullable=False),  # numbers are used again
    Column("host", String(200), nullable=False),  # for a person
    Column("lease_s", Float(53), nullable=False),  # silence after which its claims are free
    Column("beats", Integer, nullable=False),
    Column("has_left", Boolean, nullable=False),
    Column("joined_at", String(40), nullable=False),
)

# A claim that went back is not taken out: the next one has a higher attempt.
CLAIMS = Table(
    "claims",
    METADATA,
    *_place(),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("worker", String(32), nullable=False),
    Column("claimed_at", String(40), nullable=False),
    sqlite_with_rowid=False,
)


class JournalError(RuntimeError):
    """A journal that cannot be opened, read or written, or is not of this search."""


_CURE = "start the search anew"
LAYOUT = Layout(METADATA, "journal", _CURE, JournalError, SCHEMAS, SCHEMA_VERSION)


def _evaluations_alone() -> Layout:
    """What every journal has had from the first."""
    metadata = MetaData()
    EVALUATIONS.to_metadata(metadata)
    return Layout(metadata, "journal", "name the journal of an earlier search", JournalError)


class Journal:
    """Values of architectures by context and metric, in SQLite or PostgreSQL.

    `Journal("runs/mine/journal.sqlite")` or `Journal("postgresql://USER@HOST:PORT/NAME")`; one a process, not shared
    over a fork. Raises JournalError wherever the database cannot be opened, read or written.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.database = Database(url, create=True, layout=LAYOUT)

    def __str__(self) -> str:
        return str(self.database)

    def read(self, context: str, metric: str, architectures: Sequence[Architecture]) -> dict[Architecture, float]:
        """The values that are known, of those asked for."""
        known: dict[Architecture, float] = {}
        with self.database.reading() as connection:
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
            "evaluated_at": now(),
        }
        with self.database.writing() as connection:
            # another process may have computed it meanwhile: the first value stays
            self.database.insert_new(connection, EVALUATIONS, [row])

    def count(self) -> int:
        """Evaluations kept."""
        with self.database.reading() as connection:
            return connection.execute(select(func.count()).select_from(EVALUATIONS)).scalar_one()

    def close(self) -> None:
        """Let go of the database."""
        self.database.close()


def now() -> str:
    """The time as journals say it, for people: nothing is decided by it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def earlier_evaluations(url: str, context: str, metric: str) -> tuple[IntArray, FloatArray]:
    """Every value of `metric` in `context` that a journal holds: architectures (n, genes) and values (n,), sorted.

    What depends on supernet and data alone, such as accuracy, carries over to a search for another device. The
    journal is only read, one of the older layout too. Raises JournalError where it is of another context.
    """
    database = Database(url, create=False, layout=_evaluations_alone())
    try:
        with database.reading() as connection:
            this = (EVALUATIONS.c.context == context) & (EVALUATIONS.c.metric == metric)
            columns = EVALUATIONS.c.architecture, EVALUATIONS.c.value
            found = {tuple(json.loads(key)): value for key, value in connection.execute(select(*columns).where(this))}
            others = select(EVALUATIONS.c.context).where(EVALUATIONS.c.metric == metric).distinct().limit(3)
            contexts = sorted(connection.scalars(others)) if not found else []
    except ValueError as error:
        raise JournalError(f"{database}: holds an architecture that is no list ({error}): restore a copy") from error
    finally:
        database.close()
    if not found:
        held = f"holds {metric} of {' and '.join(contexts)}" if contexts else f"holds no {metric}"
        raise JournalError(
            f"{database} {held}, not of {context} (supernet/data/...): "
            "name the journal of a search with the same supernet and data, or start without one"
        )
    rows = sorted(found)
    if len({len(row) for row in rows}) > 1:
        raise JournalError(f"{database}: architectures of {context} differ in their number of genes: restore a copy")
    return np.array(rows, dtype=np.int64), np.array([found[row] for row in rows])


def journalled(objective: Objective, journal: Journal, *, context: str) -> Objective:
    """`objective` computed once an architecture and read from the journal ever after, whichever search asks.

    `context` says what the costs depend on beside the architecture, for example a digest of weights and data. Rows
    are computed one at a time and kept at once, so that a kill costs no more than the row it interrupts.
    """

    def costs(X: IntArray) -> FloatArray:
        rows = [tuple(row) for row in X.tolist()]
        known = journal.read(context, objective.name, rows)
        for row in rows:
            if row not in known:
                found = np.asarray(objective.costs(np.array([row])))
                if found.shape != (1,):
                    raise ValueError(f"costs of one architecture have shape {found.shape}, not (1,)")
                known[row] = float(found[0])
                if np.isfinite(known[row]):  # a search names what is not, and computes it again when it is mended
                    journal.write(context, objective.name, row, known[row])
        return np.array([known[row] for row in rows])

    return Objective(
        objective.name, objective.unit, costs, maximised=objective.maximised, deviations=objective.deviations
    )
