"""One search in a journal: every ask, outcome and tell, so that any process can go on with it bit for bit.

A seeded algorithm asks the same when it is told the same. Going on is therefore running the search again from its
beginning: asks are computed again and must equal those recorded, what was evaluated is read, and the rest is shared
among the processes at work on it. Nothing of an algorithm's inner state is stored.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import chain, repeat
from types import TracebackType
from typing import Self

import numpy as np
from sqlalchemy import Connection, func, insert, select

from hwnas.engine import rounds
from hwnas.engine.architecture import FloatArray, IntArray
from hwnas.engine.identity import SearchIdentity
from hwnas.engine.journal import ASKS, OUTCOMES, SEARCHES, TELLS, Journal, JournalError, now
from hwnas.engine.rounds import Round
from hwnas.engine.workers import LEASE_S, Worker, lock

Evaluate = Callable[[IntArray], FloatArray]  # rows that keep every limit (n, genes) -> costs (n, objectives)

WAITS_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)  # for what others evaluate; the last one again and again


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a recorded search has come."""

    rounds: int  # told
    asked: int  # candidates
    kept: int  # of those asked, with an outcome


class SearchRecord:
    """A search in a journal, to be given to `search(..., record=...)`. Raises JournalError.

    Costs that are not cheap are claimed, computed and kept `batch` rows at a time: a kill loses the batch that it
    interrupts, unless the objective keeps its values itself (see `journalled`; accuracies of a supernet are kept). A
    larger batch suits objectives that compute many rows faster together. One whose last bit depends on the rows
    beside it, as a matrix product's does, needs a batch of 1, or a search that was interrupted may end otherwise.
    """

    def __init__(
        self,
        journal: Journal,
        identity: SearchIdentity,
        *,
        batch: int = 1,
        lease_s: float = LEASE_S,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if batch < 1:
            raise ValueError(f"a batch of {batch} evaluates nothing: give at least 1")
        self.journal, self.identity = journal, identity
        self._database, self._batch, self._lease_s, self._sleep = journal.database, batch, lease_s, sleep
        self._genes, self._objectives = (len(identity.settings[name]) for name in ("genes", "objectives"))
        self._search, self._last = 0, -1  # the search's number, and its last round when this process began
        self._history = ""
        self._worker: Worker | None = None
        self._stack = ExitStack()

    def progress(self) -> Progress | None:
        """How far the search is; None where the journal has none with these settings."""
        with self._database.reading() as connection:
            found = connection.scalar(select(SEARCHES.c.id).where(SEARCHES.c.digest == self.identity.digest))
            if found is None:
                return None
            counts = [
                connection.execute(select(counted).where(table.c.search == found, table.c.round > 0)).scalar_one()
                for table, counted in (
                    (TELLS, func.count(TELLS.c.round.distinct())),
                    (ASKS, func.count(ASKS.c.row)),
                    (OUTCOMES, func.count(OUTCOMES.c.row)),
                )
            ]
        return Progress(*counts)

    def differences(self) -> tuple[str, ...]:
        """Names of the settings in which the journal's most similar search differs; none where it has no search."""
        with self._database.reading() as connection:
            recorded = [json.loads(text) for text in connection.scalars(select(SEARCHES.c.settings))]
        mine = json.loads(self.identity.text)
        return min((tuple(n for n in mine if other.get(n) != mine[n]) for other in recorded), key=len, default=())

    # ---- what the search loop asks for ------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        made_by = {name: version(name) for name in ("hwnas", "numpy", "scikit-learn", "torch")}
        row = {
            "digest": self.identity.digest,
            "settings": self.identity.text,
            "made_by": json.dumps({**made_by, "python": platform.python_version(), "machine": platform.machine()}),
            "begun_at": now(),
        }
        with self._database.writing() as connection:
            self._database.insert_new(connection, SEARCHES, [row])
            this = select(SEARCHES.c.id).where(SEARCHES.c.digest == row["digest"])
            self._search = connection.execute(this).scalar_one()
            last = connection.scalar(select(func.max(ASKS.c.round)).where(ASKS.c.search == self._search))
        self._last = -1 if last is None else last
        self._history = ""  # a search begins at its beginning
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._worker = None
        self._stack.__exit__(kind, error, trace)

    @property
    def resumed(self) -> bool:
        """Whether rounds of this search were recorded before it began here."""
        return self._last > 0

    def earlier(self, X: IntArray) -> IntArray:
        """Rows to tell before anything is asked: `X` in a new search, those of its beginning in one that goes on."""
        with self._database.reading() as connection:
            recorded = self._read(connection, 0, 0).X
        if len(recorded) == 0 and len(X) and self.resumed:
            raise JournalError(
                f"{self.journal}: this search began without earlier evaluations: "
                "name where they are from in its identity, or go on without them"
            )
        return recorded if len(recorded) else X

    def settle(
        self, number: int, X: IntArray, violation: FloatArray, evaluate: Evaluate, *, cheap: bool
    ) -> tuple[FloatArray, FloatArray]:
        """Costs (n, objectives) and violation (n,) of a round: what is known is read, the rest computed.

        `evaluate` gets rows that keep every limit. Of a `cheap` round it gets all at once, and the round is recorded
        in one transaction; others are shared with whoever works on the search.
        """
        recorded = self._look(number, X)
        if len(recorded.missing(len(X))):
            recorded = self._begin(number, X, violation, evaluate, recorded, cheap=cheap)
        if len(recorded.missing(len(X))):
            self._share(number, X, evaluate)
            recorded = self._look(number, X)
        costs, violation = recorded.costs[: len(X)], recorded.violation[: len(X)]
        history = rounds.lengthened(self._history, X, costs, violation)
        if recorded.history is None:
            with self._locked() as connection:
                self._database.insert_new(connection, TELLS, [rounds.tell_row(self._search, number, len(X), history)])
        elif recorded.history != history:
            raise JournalError(f"{self.journal}: round {number} does not hold what was told: restore a copy")
        self._history = history
        return costs, violation

    # ---- inside a round ---------------------------------------------------------------------------------------------

    def _look(self, number: int, X: IntArray) -> Round:
        if number > self._last:
            return Round.empty(self._genes, self._objectives)
        with self._database.reading() as connection:
            recorded = self._read(connection, number, len(X))
            self._compare(connection, number, recorded.X, X)
        return recorded

    def _begin(
        self, number: int, X: IntArray, violation: FloatArray, evaluate: Evaluate, recorded: Round, *, cheap: bool
    ) -> Round:
        """Record what is asked, and the outcomes that need nobody's work."""
        missing = recorded.missing(len(X))
        rows = missing if cheap else missing[violation[missing] > 0]
        costs, feasible = np.full((len(rows), self._objectives), np.nan), violation[rows] <= 0
        if feasible.any():
            costs[feasible] = evaluate(X[rows[feasible]])
        with self._locked() as connection:
            recorded = self._read(connection, number, len(X))  # another process may have been here meanwhile
            self._compare(connection, number, recorded.X, X)
            rounds.write_asks(connection, self._search, number, X, start=len(recorded.X))
            new = ~np.isin(rows, recorded.rows)
            outcomes = rows[new], costs[new], violation[rows[new]]
            rounds.insert_all(connection, OUTCOMES, rounds.outcome_rows(self._search, number, *outcomes))
            recorded = recorded.joined(X, *outcomes)
            if recorded.history is None and len(recorded.missing(len(X))) == 0:
                told = X, recorded.costs[: len(X)], recorded.violation[: len(X)]
                history = rounds.lengthened(self._history, *told)
                connection.execute(insert(TELLS), rounds.tell_row(self._search, number, len(X), history))
                recorded = replace(recorded, history=history)
        self._last = max(self._last, number)
        return recorded

    def _share(self, number: int, X: IntArray, evaluate: Evaluate) -> None:
        """Evaluate with others until every row has an outcome."""
        if self._worker is None:
            self._worker = self._stack.enter_context(Worker(self.journal, self._search, lease_s=self._lease_s))
        # earlier evaluations are known where they come from
        at_most = self._batch if number else len(X)
        waits = chain(WAITS_S, repeat(WAITS_S[-1]))
        while True:
            share, left = self._worker.claim(number, len(X), at_most=at_most)
            if left == 0:
                return
            if not share:
                self._sleep(next(waits))
                continue
            waits = chain(WAITS_S, repeat(WAITS_S[-1]))
            rows = np.array(share)
            costs = evaluate(X[rows])
            made = rounds.outcome_rows(self._search, number, rows, costs, np.zeros(len(rows)), worker=self._worker.id)
            with self._locked() as connection:
                # who was silent for too long may find that another has answered: the first outcome stays
                self._database.insert_new(connection, OUTCOMES, made)

    @contextmanager
    def _locked(self) -> Iterator[Connection]:
        with self._database.writing() as connection:
            lock(connection, self._search)
            yield connection

    def _read(self, connection: Connection, number: int, rows: int) -> Round:
        try:
            return rounds.read_round(
                connection, self._search, number, rows=rows, genes=self._genes, objectives=self._objectives
            )
        except (ValueError, TypeError) as error:
            raise JournalError(f"{self.journal}: round {number} is damaged ({error}): restore a copy") from error

    def _compare(self, connection: Connection, number: int, recorded: IntArray, X: IntArray) -> None:
        shared = min(len(recorded), len(X))
        differ = np.flatnonzero((recorded[:shared] != X[:shared]).any(1))
        if len(differ) == 0:
            return
        row = int(differ[0])
        made_by = connection.scalar(select(SEARCHES.c.made_by).where(SEARCHES.c.id == self._search))
        raise JournalError(
            f"{self.journal}: row {row} of round {number} was {recorded[row].tolist()} when the search began, "
            f"by {made_by}, and is {X[row].tolist()} now: go on with those versions, or search with another seed "
            "(what was evaluated stays known; nothing was changed)"
        )
