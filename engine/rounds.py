"""Rounds of a recorded search as rows of a journal. Every function works inside a transaction of its caller."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from sqlalchemy import Column, ColumnElement, Connection, Dialect, Select, Table, bindparam, insert, select

from hwnas.engine.architecture import FloatArray, IntArray
from hwnas.engine.journal import ASKS, OUTCOMES, TELLS, now

Row = dict[str, object]


@dataclass(frozen=True, slots=True)
class Round:
    """What a journal holds of a round: the rows asked, and the outcomes of those that have one."""

    X: IntArray  # (asked, genes)
    rows: IntArray  # (outcomes,) into X, ascending
    costs: FloatArray  # (outcomes, objectives), NaN where a limit is broken
    violation: FloatArray  # (outcomes,)
    history: str | None = None  # digest of all that was told up to here; None where the round was not told

    @classmethod
    def empty(cls, genes: int, objectives: int) -> Round:
        """A round of which nothing is recorded."""
        return cls(np.zeros((0, genes), np.int64), np.zeros(0, np.int64), np.zeros((0, objectives)), np.zeros(0))

    def missing(self, rows: int) -> IntArray:
        """Which of the first `rows` rows have no outcome."""
        return np.setdiff1d(np.arange(rows), self.rows, assume_unique=True)

    def joined(self, X: IntArray, rows: IntArray, costs: FloatArray, violation: FloatArray) -> Round:
        """With all of `X` asked, and with outcomes of `rows`, which had none."""
        both = np.concatenate([self.rows, rows])
        order = np.argsort(both)
        joined = np.concatenate([self.costs, costs])[order], np.concatenate([self.violation, violation])[order]
        return Round(X if len(X) > len(self.X) else self.X, both[order], *joined, self.history)


# ---- reading --------------------------------------------------------------------------------------------------------


def _of_a_round(table: Table, *columns: Column[Any], **equal: str) -> Select[Any]:
    # built once: building a statement takes SQLAlchemy longer than SQLite takes to answer it
    names = {"search": "search", "round": "round", **equal}
    conditions: list[ColumnElement[bool]] = [table.c[name] == bindparam(f"the_{name}") for name in names]
    return select(*columns).where(*conditions)


_ASKED = _of_a_round(ASKS, ASKS.c.architecture).order_by(ASKS.c.row)
_KEPT = _of_a_round(OUTCOMES, OUTCOMES.c.row, OUTCOMES.c.costs, OUTCOMES.c.violation).order_by(OUTCOMES.c.row)
_TOLD = _of_a_round(TELLS, TELLS.c.history, rows="rows")


def read_round(connection: Connection, search: int, number: int, *, rows: int, genes: int, objectives: int) -> Round:
    """What the journal holds of a round, of which `rows` rows may have been told. Raises ValueError for damage."""
    place = {"the_search": search, "the_round": number}
    asked = connection.scalars(_ASKED, place).all()
    if not asked:
        return Round.empty(genes, objectives)
    kept = connection.execute(_KEPT, place).all()
    broken = [float("nan")] * objectives
    costs = [broken if found is None else found for found in _parsed([text or "null" for _, text, _ in kept])]
    return Round(
        np.array(_parsed(asked), dtype=np.int64).reshape(len(asked), genes),
        np.array([row for row, _, _ in kept], dtype=np.int64),
        np.array(costs, dtype=np.float64).reshape(len(kept), objectives),
        np.array([violation for _, _, violation in kept], dtype=np.float64),
        connection.scalar(_TOLD, {**place, "the_rows": rows}),
    )


# ---- writing --------------------------------------------------------------------------------------------------------


def write_asks(connection: Connection, search: int, number: int, X: IntArray, *, start: int) -> None:
    """Record the rows of `X` from `start` on; those before it are recorded."""
    place = {"search": search, "round": number}
    insert_all(
        connection,
        ASKS,
        [{**place, "row": row, "architecture": text} for row, text in enumerate(_texts(X[start:]), start)],
    )


def outcome_rows(
    search: int, number: int, rows: IntArray, costs: FloatArray, violation: FloatArray, *, worker: str | None = None
) -> list[Row]:
    """Rows of `OUTCOMES` for these rows of a round."""
    texts: list[str | None] = list(_texts(costs))
    for i in np.flatnonzero(violation > 0).tolist():
        texts[i] = None
    place = {"search": search, "round": number, "worker": worker, "kept_at": now()}
    return [
        {**place, "row": row, "costs": text, "violation": value}
        for row, text, value in zip(rows.tolist(), texts, violation.tolist(), strict=True)
    ]


def insert_all(connection: Connection, table: Table, rows: Sequence[Row]) -> None:
    """Insert many rows that are known to be new, each with every column of the table."""
    if not rows:
        return
    statement, columns = _statement(table, connection.dialect)
    # past SQLAlchemy's care for each parameter, which takes it longer than the database takes to insert
    values = rows if columns is None else [tuple([row[name] for name in columns]) for row in rows]
    connection.exec_driver_sql(statement, values)


@cache
def _statement(table: Table, dialect: Dialect) -> tuple[str, tuple[str, ...] | None]:
    compiled = insert(table).compile(dialect=dialect)
    return str(compiled), tuple(compiled.positiontup or ()) if dialect.positional else None


def tell_row(search: int, number: int, rows: int, history: str) -> Row:
    """The row of `TELLS` that says that these rows were told."""
    return {"search": search, "round": number, "rows": rows, "history": history, "told_at": now()}


def lengthened(history: str, X: IntArray, costs: FloatArray, violation: FloatArray) -> str:
    """The digest of a history and what is told next: 64 hex digits, the same on every machine."""
    digest = hashlib.sha256(history.encode())
    digest.update(X.astype("<i4").tobytes())
    digest.update(np.where(np.isnan(costs), np.nan, costs).astype("<f8").tobytes())  # NaN has many bit patterns
    digest.update(violation.astype("<f8").tobytes())
    return digest.hexdigest()


def _texts(rows: IntArray | FloatArray) -> list[str]:
    """Each row as a JSON list; numbers are read back exactly."""
    # one text, cut into rows: half the time of a text a row
    return [f"[{row}]" for row in json.dumps(rows.tolist())[2:-2].split("], [")] if len(rows) else []


def _parsed(texts: Sequence[str]) -> list[Any]:
    """What many JSON texts say, parsed as one."""
    found: list[Any] = json.loads(f"[{','.join(texts)}]")
    return found
