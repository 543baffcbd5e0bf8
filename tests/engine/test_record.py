"""Searches in a journal: recorded whole, gone on with bit for bit, prolonged, begun from earlier ones, refused."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, func, select, update

from hwnas.engine import algorithms, rounds
from hwnas.engine.architecture import FloatArray, IntArray
from hwnas.engine.journal import (
    ASKS,
    CLAIMS,
    METADATA,
    OUTCOMES,
    SEARCHES,
    TELLS,
    Journal,
    JournalError,
    earlier_evaluations,
    journalled,
)
from hwnas.engine.objective import Objective, ObjectiveError
from hwnas.engine.record import SearchRecord
from hwnas.engine.rounds import Round
from hwnas.engine.search import search
from hwnas.latency.database import Database
from tests.engine.searches import GENES, LIMIT, OBJECTIVES, equal, error, identity, searched

CHEAP = tuple(replace(objective, cheap=True) for objective in OBJECTIVES)


class Counted:
    """The first objective, with a note of every row it was asked for and a way to end there."""

    def __init__(self, *, stop_at: int | None = None, answer: float | None = None) -> None:
        self.rows: list[tuple[int, ...]] = []
        self._stop_at, self._answer = stop_at, answer

    def __call__(self, X: IntArray) -> FloatArray:
        self.rows += [tuple(row) for row in X.tolist()]
        if self._stop_at is not None and len(self.rows) >= self._stop_at:
            if self._answer is not None:
                return np.full(len(X), self._answer)
            raise KeyboardInterrupt
        return error(X)

    @property
    def objectives(self) -> tuple[Objective, ...]:
        return Objective("error", "", self), OBJECTIVES[1]


def dump(journal: Journal) -> dict[str, list[tuple[Any, ...]]]:
    """Everything in a journal."""
    with journal.database.reading() as connection:
        return {
            table.name: sorted(map(tuple, connection.execute(select(table))), key=repr)
            for table in METADATA.sorted_tables
        }


def count(journal: Journal, table: Any) -> int:
    with journal.database.reading() as connection:
        return int(connection.execute(select(func.count()).select_from(table)).scalar_one())


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(str(tmp_path / "journal.sqlite"))


# ---- what is recorded -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cheap", [False, True], ids=["shared", "at once"])
def test_a_recorded_search_equals_one_without_a_record(location: str, cheap: bool) -> None:
    objectives = CHEAP if cheap else OBJECTIVES
    recorded = searched(Journal(location), objectives=objectives, constraints=(LIMIT,), batch=3)
    equal(recorded, searched(objectives=objectives, constraints=(LIMIT,)))


@pytest.mark.parametrize("cheap", [False, True], ids=["shared", "at once"])
def test_every_ask_outcome_and_tell_is_in_the_database(location: str, cheap: bool) -> None:
    journal = Journal(location)
    evaluated = searched(journal, objectives=CHEAP if cheap else OBJECTIVES, constraints=(LIMIT,), evaluations=36)
    with journal.database.reading() as connection:
        for number, stop in enumerate((8, 16, 24, 32, 36), 1):
            held = rounds.read_round(connection, 1, number, rows=stop - 8 * number + 8, genes=6, objectives=2)
            told = slice(8 * number - 8, stop)
            assert held.X.tolist() == evaluated.X[told].tolist()
            assert held.costs.tobytes() == evaluated.costs[told].tobytes()
            assert held.violation.tolist() == evaluated.violation[told].tolist()
            assert held.history is not None
    assert (count(journal, ASKS), count(journal, OUTCOMES), count(journal, TELLS)) == (36, 36, 5)
    assert count(journal, CLAIMS) == (0 if cheap else int((evaluated.violation <= 0).sum()))


def test_a_cheap_round_is_one_transaction(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    writing, transactions = Database.writing, []

    def counted(self: Database) -> AbstractContextManager[Connection]:
        transactions.append(1)
        return writing(self)

    monkeypatch.setattr(Database, "writing", counted)
    searched(journal, objectives=CHEAP, evaluations=40)
    assert len(transactions) == 1 + 5  # the search itself, and its rounds


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=2, max_size=2), max_size=5))
def test_costs_are_read_back_bit_for_bit(costs: list[list[float]]) -> None:
    values = np.array(costs).reshape(len(costs), 2)
    made = rounds.outcome_rows(1, 1, np.arange(len(values)), values, np.zeros(len(values)))
    read = [rounds._parsed([str(row["costs"])])[0] for row in made]
    assert np.array(read, dtype=float).reshape(values.shape).tobytes() == values.tobytes()


@settings(max_examples=60, deadline=None)
@given(st.sets(st.integers(0, 9)), st.sets(st.integers(0, 9)))
def test_joined_rounds_are_in_order_and_know_what_is_missing(first: set[int], second: set[int]) -> None:
    def outcomes(rows: set[int]) -> tuple[IntArray, FloatArray, FloatArray]:
        ordered = np.array(sorted(rows), dtype=np.int64)
        return ordered, ordered[:, None] * 1.5, ordered * 0.0

    X = np.zeros((10, 3), dtype=np.int64)
    joined = Round(X[:4], *outcomes(first), "told").joined(X, *outcomes(second - first))
    assert joined.rows.tolist() == sorted(first | second)
    assert joined.costs[:, 0].tolist() == [row * 1.5 for row in sorted(first | second)]
    assert joined.missing(7).tolist() == [row for row in range(7) if row not in first | second]
    assert len(joined.X) == 10
    assert joined.history == "told"


# ---- going on -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 3, 100])
@pytest.mark.parametrize("stop_at", [1, 7, 8, 20])
def test_an_interrupted_search_ends_as_it_would_have_and_nothing_kept_is_evaluated_again(
    journal: Journal, stop_at: int, batch: int
) -> None:
    first, second = Counted(stop_at=stop_at), Counted()
    with pytest.raises(KeyboardInterrupt):
        searched(journal, objectives=first.objectives, constraints=(LIMIT,), batch=batch)
    kept = count(journal, OUTCOMES)
    resumed = searched(journal, objectives=second.objectives, constraints=(LIMIT,), batch=batch)
    equal(resumed, searched(constraints=(LIMIT,)))
    feasible = {tuple(row) for row in resumed.feasible.X.tolist()}
    assert len(second.rows) == len(set(second.rows))
    assert set(first.rows) | set(second.rows) == feasible
    # the batch that was interrupted is all that is evaluated twice
    assert len(set(first.rows) & set(second.rows)) <= batch
    assert count(journal, OUTCOMES) == len(resumed) > kept


@pytest.mark.parametrize("name", algorithms.names())
def test_every_algorithm_goes_on_bit_for_bit(journal: Journal, name: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        searched(journal, objectives=Counted(stop_at=13).objectives, algorithm=name, evaluations=32)
    equal(searched(journal, algorithm=name, evaluations=32), searched(algorithm=name, evaluations=32))


def test_a_finished_search_is_read_and_nothing_is_written(location: str) -> None:
    journal, again = Journal(location), Counted()
    whole = searched(journal)
    before = dump(journal)
    equal(searched(journal, objectives=again.objectives), whole)
    assert again.rows == []
    assert dump(journal) == before


@pytest.mark.parametrize("cheap", [False, True], ids=["shared", "at once"])
def test_a_search_is_prolonged_as_if_it_had_been_longer_from_the_first(location: str, cheap: bool) -> None:
    journal, objectives = Journal(location), CHEAP if cheap else OBJECTIVES
    searched(journal, objectives=objectives, evaluations=19)  # ends within a round
    searched(journal, objectives=objectives, evaluations=22)
    longer = searched(journal, objectives=objectives, evaluations=45)
    equal(longer, searched(objectives=objectives, evaluations=45))
    equal(searched(journal, objectives=objectives, evaluations=10), searched(objectives=objectives, evaluations=10))


def test_searches_of_other_settings_live_side_by_side(journal: Journal) -> None:
    for seed in (3, 4, 3):
        equal(searched(journal, seed=seed), searched(seed=seed))
    assert count(journal, SEARCHES) == 2


def test_progress_is_told(journal: Journal) -> None:
    record = SearchRecord(journal, identity())
    assert record.progress() is None
    with pytest.raises(KeyboardInterrupt):
        searched(journal, objectives=Counted(stop_at=12).objectives)
    progress = record.progress()
    assert progress is not None
    assert (progress.rounds, progress.asked, progress.kept) == (1, 16, 11)


def test_what_differs_from_the_most_similar_search_is_named(journal: Journal) -> None:
    assert SearchRecord(journal, identity()).differences() == ()
    searched(journal)
    searched(journal, population=10, seed=9)
    assert SearchRecord(journal, identity(population=12)).differences() == ("population",)


def test_equal_settings_are_one_search_whatever_their_types() -> None:
    assert identity(seed=3).digest == identity(seed=3).digest
    assert identity(context="a").digest != identity(context="b").digest


@pytest.mark.parametrize("rounds_ahead", [1, 3])
@pytest.mark.parametrize("cheap", [False, True], ids=["shared", "at once"])
def test_a_process_that_is_overtaken_goes_on_with_what_the_other_left(
    location: str, monkeypatch: pytest.MonkeyPatch, cheap: bool, rounds_ahead: int
) -> None:
    objectives = CHEAP if cheap else OBJECTIVES
    journal, look, overtaken = Journal(location), SearchRecord._look, []

    def overtake(self: SearchRecord, number: int, X: IntArray) -> Round:
        stale = look(self, number, X)
        if self.journal is journal and number not in overtaken:  # between the look and what is done about it
            overtaken.append(number)
            other = Journal(location)
            searched(other, objectives=objectives, constraints=(LIMIT,), evaluations=8 * (number + rounds_ahead - 1))
            other.close()
        return stale

    monkeypatch.setattr(SearchRecord, "_look", overtake)
    found = searched(journal, objectives=objectives, constraints=(LIMIT,))
    monkeypatch.undo()
    equal(found, searched(objectives=objectives, constraints=(LIMIT,)))
    assert overtaken == [1, 2, 3, 4, 5]


# ---- refusing -------------------------------------------------------------------------------------------------------


def test_asks_that_differ_are_refused_with_the_cure_and_the_journal_is_untouched(location: str) -> None:
    journal = Journal(location)
    searched(journal, evaluations=20)
    before = dump(journal)
    # what another version of a library may do to the asks
    other = algorithms.make("nsga2", GENES, population=8, rng=np.random.default_rng(4))
    with pytest.raises(JournalError, match=r"row 0 of round 1 was \[.*\] when the search began, by .*numpy") as told:
        search(other, OBJECTIVES, evaluations=40, record=SearchRecord(journal, identity()))
    assert "go on with those versions, or search with another seed" in str(told.value)
    assert dump(journal) == before
    equal(searched(journal), searched())


def test_with_another_latency_table_it_is_another_search(journal: Journal) -> None:
    slower = OBJECTIVES[0], replace(OBJECTIVES[1], costs=lambda X: 2 * OBJECTIVES[1].costs(X))
    for objectives in (OBJECTIVES, slower, OBJECTIVES):
        equal(searched(journal, objectives=objectives), searched(objectives=objectives))
    assert count(journal, SEARCHES) == 2
    assert SearchRecord(journal, identity(objectives=slower, seed=5)).differences() == ("seed",)


def test_with_another_limit_it_is_another_search(journal: Journal) -> None:
    limits = LIMIT, replace(LIMIT, upper=9.0), replace(LIMIT, costs=lambda X: 1 + LIMIT.costs(X))
    for limit in limits:
        equal(searched(journal, constraints=(limit,)), searched(constraints=(limit,)))
    assert count(journal, SEARCHES) == 3


def test_a_cheap_objective_that_answers_otherwise_than_when_the_search_began_is_named(journal: Journal) -> None:
    searched(journal, evaluations=20)
    before = dump(journal)
    changed = OBJECTIVES[0], replace(OBJECTIVES[1], costs=lambda X: 2 * OBJECTIVES[1].costs(X))
    with pytest.raises(JournalError, match=r"'latency_ms' of \[.*\] was \d.* ms when the search began and is \d.* now"):
        searched(record=SearchRecord(journal, identity()), objectives=changed)
    assert dump(journal) == before


@pytest.mark.parametrize("answer", [np.nan, np.inf])
@pytest.mark.parametrize("stop_at", [1, 13])
def test_a_search_goes_on_once_the_objective_is_mended(location: str, answer: float, stop_at: int) -> None:
    journal, bad = Journal(location), Counted(stop_at=stop_at, answer=answer)
    with pytest.raises(ObjectiveError, match=r"'error' is (nan|inf) for"):
        searched(journal, objectives=bad.objectives)
    assert count(journal, OUTCOMES) == stop_at - 1
    equal(searched(journal), searched())


OUTCOME = update(OUTCOMES).where(OUTCOMES.c.round == 2, OUTCOMES.c.row == 3)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        (
            update(OUTCOMES).where(OUTCOMES.c.round == 2, OUTCOMES.c.row == 3).values(costs="[0.1, 0.2]"),
            "does not hold",
        ),
        (update(OUTCOMES).where(OUTCOMES.c.round == 2, OUTCOMES.c.row == 3).values(costs="[0.1"), "is damaged"),
        (update(OUTCOMES).where(OUTCOMES.c.round == 2, OUTCOMES.c.row == 3).values(costs="[0.1]"), "is damaged"),
        (update(ASKS).where(ASKS.c.round == 2, ASKS.c.row == 0).values(architecture="[1]"), "is damaged"),
    ],
)
def test_a_round_that_is_not_as_it_was_told_is_refused(location: str, statement: Any, message: str) -> None:
    journal = Journal(location)
    searched(journal)
    with journal.database.writing() as connection:
        connection.execute(statement)
    with pytest.raises(JournalError, match=f"round 2 {message}.*restore a copy"):
        searched(journal)


def test_a_batch_of_none_is_refused(journal: Journal) -> None:
    with pytest.raises(ValueError, match="batch of 0"):
        SearchRecord(journal, identity(), batch=0)


# ---- earlier searches -----------------------------------------------------------------------------------------------


def _elsewhere(path: Path, calls: Callable[[IntArray], FloatArray] = error) -> str:
    """A journal with the errors of 30 architectures of `supernet/data`."""
    journal = Journal(str(path / "elsewhere.sqlite"))
    kept = journalled(Objective("error", "", calls), journal, context="supernet/data")
    searched(journal, objectives=(kept, OBJECTIVES[1]), evaluations=30, seed=8)
    journal.close()
    return str(path / "elsewhere.sqlite")


def test_a_search_begins_from_the_accuracies_of_another_device(location: str, tmp_path: Path) -> None:
    X, errors = earlier_evaluations(_elsewhere(tmp_path), "supernet/data", "error")
    assert len(X) == 30
    assert (errors == error(X)).all()
    other_device = OBJECTIVES[0], Objective("latency_ms", "ms", lambda X: 9 - X[:, 0] * 1.0, cheap=True)
    warm = searched(Journal(location), objectives=other_device, earlier=X)
    equal(warm, searched(objectives=other_device, earlier=X))
    assert (warm.costs[:30, 0] == errors).all()
    assert len(np.unique(warm.X, axis=0)) == len(warm) == 70


def test_a_warm_search_goes_on_from_what_it_began_with(location: str, tmp_path: Path) -> None:
    X, _ = earlier_evaluations(_elsewhere(tmp_path), "supernet/data", "error")
    journal = Journal(location)
    with pytest.raises(KeyboardInterrupt):
        searched(journal, objectives=Counted(stop_at=40).objectives, earlier=X[:20])
    # the earlier journal has grown meanwhile
    equal(searched(journal, earlier=X), searched(earlier=X[:20]))


def test_a_search_that_began_cold_is_not_warmed_later(journal: Journal) -> None:
    cold = searched(journal)
    record = SearchRecord(journal, identity())
    with pytest.raises(JournalError, match="began without earlier evaluations"):
        searched(record=record, earlier=cold.X)


def test_a_journal_of_another_supernet_is_refused_with_both_digests(tmp_path: Path) -> None:
    url = _elsewhere(tmp_path)
    before = Path(url).read_bytes()
    with pytest.raises(JournalError, match=r"holds error of supernet/data, not of another/data") as told:
        earlier_evaluations(url, "another/data", "error")
    assert "same supernet and data" in str(told.value)
    assert Path(url).read_bytes() == before


def test_a_journal_without_the_metric_says_so(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="holds no accuracy"):
        earlier_evaluations(_elsewhere(tmp_path), "supernet/data", "accuracy")


def test_a_journal_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="there is no journal at"):
        earlier_evaluations(str(tmp_path / "no.sqlite"), "a", "accuracy")
    assert not list(tmp_path.iterdir())


def test_an_objective_in_the_journal_is_computed_once_whichever_search_asks(journal: Journal) -> None:
    calls: list[IntArray] = []

    def noted(X: IntArray) -> FloatArray:
        calls.append(X)
        return error(X)

    kept = journalled(Objective("error", "", noted, maximised=True), journal, context="a")
    assert kept.maximised
    for seed in (1, 2, 3):
        searched(journal, objectives=(kept, OBJECTIVES[1]), seed=seed)
    assert len(np.unique(np.concatenate(calls), axis=0)) == len(calls) < 120
    assert all(len(X) == 1 for X in calls)


def test_a_value_that_is_no_number_is_never_kept(journal: Journal) -> None:
    kept = journalled(Objective("error", "", lambda X: np.full(len(X), np.nan)), journal, context="a")
    with pytest.raises(ObjectiveError, match="'error' is nan"):
        searched(journal, objectives=(kept, OBJECTIVES[1]))
    assert journal.count() == 0
    pair = journalled(Objective("error", "", lambda X: np.zeros(2)), journal, context="a")
    with pytest.raises(ObjectiveError, match=r"shape \(2,\), not \(1,\)"):
        searched(journal, objectives=(pair, OBJECTIVES[1]))
