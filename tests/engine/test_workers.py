"""Processes that share one search: claims, their return, and searches of which a worker is killed."""

from __future__ import annotations

import os
import signal
from collections import Counter
from contextlib import ExitStack
from multiprocessing import Pipe, get_context
from multiprocessing.connection import Connection as Wire
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np
import pytest
from sqlalchemy import insert, select, update

from hwnas.engine import rounds
from hwnas.engine.architecture import FloatArray, IntArray
from hwnas.engine.journal import CLAIMS, OUTCOMES, SEARCHES, TELLS, WORKERS, Journal, JournalError
from hwnas.engine.objective import Objective
from hwnas.engine.record import SearchRecord
from hwnas.engine.search import Evaluated
from hwnas.engine.workers import Worker, birth, machine
from tests.engine.searches import OBJECTIVES, equal, error, identity, searched

ROWS = 12


class Clock:
    """A time that tests set."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def journal(location: str) -> Journal:
    journal = Journal(location)
    row = {"id": 1, "digest": "d", "settings": "{}", "made_by": "{}", "begun_at": ""}
    with journal.database.writing() as connection:
        connection.execute(insert(SEARCHES), row)
    return journal


def _set(journal: Journal, worker: Worker, **values: Any) -> None:
    with journal.database.writing() as connection:
        connection.execute(update(WORKERS).where(WORKERS.c.id == worker.id).values(**values))


def _keep(journal: Journal, rows: list[int], number: int = 1) -> None:
    made = rounds.outcome_rows(1, number, np.array(rows), np.zeros((len(rows), 2)), np.zeros(len(rows)))
    with journal.database.writing() as connection:
        connection.execute(insert(OUTCOMES), made)


# ---- claims ---------------------------------------------------------------------------------------------------------


def test_a_worker_alone_claims_as_many_as_it_may_and_nothing_twice(journal: Journal) -> None:
    with Worker(journal, 1) as worker:
        assert worker.claim(1, ROWS, at_most=5) == ([0, 1, 2, 3, 4], ROWS)
        assert worker.claim(1, ROWS, at_most=100) == ([5, 6, 7, 8, 9, 10, 11], ROWS)
        assert worker.claim(1, ROWS, at_most=100) == ([], ROWS)


def test_two_workers_share_what_is_free(journal: Journal) -> None:
    with Worker(journal, 1) as first, Worker(journal, 1) as second:
        mine, _ = first.claim(1, ROWS, at_most=100)
        yours, _ = second.claim(1, ROWS, at_most=100)
        assert (mine, yours) == ([0, 1, 2, 3, 4, 5], [6, 7, 8])


def test_workers_of_another_search_or_round_do_not_meet(journal: Journal) -> None:
    with Worker(journal, 1) as first, Worker(journal, 2) as second:
        assert first.claim(1, ROWS, at_most=100)[0] == list(range(ROWS))
        assert second.claim(1, ROWS, at_most=100)[0] == list(range(ROWS))
        assert first.claim(2, ROWS, at_most=100)[0] == list(range(ROWS))


def test_rows_with_an_outcome_are_done(journal: Journal) -> None:
    with Worker(journal, 1) as worker:
        assert worker.claim(1, ROWS, at_most=3)[0] == [0, 1, 2]
        _keep(journal, [0, 1, 7])
        assert worker.claim(1, ROWS, at_most=100) == ([3, 4, 5, 6, 8, 9, 10, 11], 9)
        _keep(journal, [2, 3, 4, 5, 6, 8, 9, 10, 11])
        assert worker.claim(1, ROWS, at_most=100) == ([], 0)


def test_claims_of_a_worker_that_left_are_free_at_once(journal: Journal) -> None:
    with Worker(journal, 1) as worker:
        with Worker(journal, 1) as other:
            assert other.claim(1, ROWS, at_most=4)[0] == [0, 1, 2, 3]
        assert worker.claim(1, ROWS, at_most=100)[0] == list(range(ROWS))
    with journal.database.reading() as connection:
        attempts = connection.scalars(select(CLAIMS.c.attempt).order_by(CLAIMS.c.row, CLAIMS.c.attempt)).all()
    assert attempts == [1, 2] * 4 + [1] * 8  # a claim that went back stays as evidence


def test_a_worker_that_ends_by_an_exception_has_left(journal: Journal) -> None:
    def fail(other: Worker) -> None:
        with other:
            other.claim(1, ROWS, at_most=4)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail(Worker(journal, 1))
    with Worker(journal, 1) as worker:
        assert len(worker.claim(1, ROWS, at_most=100)[0]) == ROWS


@pytest.mark.parametrize("joined_at", ["1970-01-01T00:00:00+00:00", "2100-01-01T00:00:00+00:00"])
def test_claims_of_a_silent_machine_return_after_the_lease_whatever_its_clock_says(
    journal: Journal, joined_at: str
) -> None:
    clock = Clock()
    with Worker(journal, 1, lease_s=600, clock=clock) as worker, Worker(journal, 1, lease_s=600) as other:
        _set(journal, other, machine="elsewhere", process=1, joined_at=joined_at)
        assert other.claim(1, ROWS, at_most=100)[0] == [0, 1, 2, 3, 4, 5]
        clock.now = 5000.0  # since it began, but it has not seen the other before
        assert worker.claim(1, ROWS, at_most=100)[0] == [6, 7, 8]
        clock.now += 599
        assert worker.claim(1, ROWS, at_most=100)[0] == [9, 10]
        clock.now += 2
        assert worker.claim(1, ROWS, at_most=100)[0] == [0, 1, 2, 3, 4, 5, 11]


def test_a_machine_that_is_heard_keeps_its_claims(journal: Journal) -> None:
    clock = Clock()
    with Worker(journal, 1, clock=clock) as worker, Worker(journal, 1, lease_s=600) as other:
        _set(journal, other, machine="elsewhere", process=1)
        claimed = other.claim(1, ROWS, at_most=6)[0]
        for beat in range(1, 9):
            clock.now += 500
            _set(journal, other, beats=beat)
            assert not set(worker.claim(1, ROWS, at_most=100)[0]) & set(claimed)


def test_the_lease_is_that_of_who_claimed(journal: Journal) -> None:
    clock = Clock()
    with Worker(journal, 1, lease_s=1, clock=clock) as worker, Worker(journal, 1, lease_s=600) as other:
        _set(journal, other, machine="elsewhere", process=1)
        other.claim(1, ROWS, at_most=100)
        worker.claim(1, ROWS, at_most=100)
        clock.now += 500
        assert not set(worker.claim(1, ROWS, at_most=100)[0]) & set(range(6))


def test_a_worker_that_could_not_say_that_it_left_is_known_to_be_gone_in_its_own_process(journal: Journal) -> None:
    with Worker(journal, 1) as other:
        other.claim(1, ROWS, at_most=100)
    _set(journal, other, has_left=False)
    with Worker(journal, 1) as worker:
        assert worker.claim(1, ROWS, at_most=100)[0] == list(range(ROWS))


def test_a_process_number_that_was_used_again_is_another_process(journal: Journal) -> None:
    with Worker(journal, 1) as worker, Worker(journal, 1) as other:
        other.claim(1, ROWS, at_most=100)
        _set(journal, other, started="an earlier life")
        assert worker.claim(1, ROWS, at_most=100)[0] == list(range(ROWS))


def test_a_worker_is_heard_while_it_lives(journal: Journal) -> None:
    heard = select(WORKERS.c.beats)
    with Worker(journal, 1, lease_s=0.08):
        beats = 0
        while beats < 3:  # ends, or the test hangs
            with journal.database.reading() as connection:
                beats = connection.execute(heard).scalar_one()


def test_a_process_is_gone_before_anyone_asks_for_its_exit_code() -> None:
    ours, theirs = Pipe()
    process = get_context("fork").Process(target=theirs.recv)
    process.start()
    assert process.pid is not None
    assert birth(process.pid) == birth(process.pid) != ""
    os.kill(process.pid, signal.SIGKILL)
    while birth(process.pid):
        pass  # the kernel takes a moment
    process.join()
    assert birth(process.pid) == ""
    assert ours is not None


def test_this_process_is_here() -> None:
    assert birth(os.getpid())
    assert machine() == machine()


# ---- outcomes -------------------------------------------------------------------------------------------------------


def test_the_first_outcome_of_a_row_stays_for_everybody(location: str) -> None:
    journal = Journal(location)
    rescued: list[int] = []

    def slow(X: IntArray) -> FloatArray:
        """While this worker is silent, another takes its row over and answers first."""
        if not rescued:
            rescued.append(1)
            costs = np.array([[0.25, OBJECTIVES[1].costs(X)[0]]])
            made = rounds.outcome_rows(1, 1, np.array([0]), costs, np.zeros(1))
            with journal.database.writing() as connection:
                connection.execute(insert(OUTCOMES), made)
        return error(X)

    objectives = Objective("error", "", slow), OBJECTIVES[1]
    found = searched(journal, objectives=objectives)
    assert found.costs[0, 0] == 0.25
    equal(searched(journal, objectives=(Objective("error", "", error), OBJECTIVES[1])), found)


def test_a_database_that_goes_away_is_told_and_not_waited_for(location: str, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(location)

    def away(X: IntArray) -> FloatArray:
        monkeypatch.setattr(journal.database, "_engine", _Away())
        return error(X)

    with pytest.raises(JournalError, match="went away"):
        searched(journal, objectives=(Objective("error", "", away), OBJECTIVES[1]))
    monkeypatch.undo()
    equal(searched(journal), searched())


class _Away:
    class dialect:  # noqa: N801  # stands for an attribute
        name = "sqlite"

    def connect(self) -> None:
        raise JournalError("went away")


# ---- real processes -------------------------------------------------------------------------------------------------


def _work(location: str, log: Wire, victim: bool, started: Wire) -> None:
    """Take part in the search; tell every row before and after it is evaluated."""

    def noted(X: IntArray) -> FloatArray:
        (row,) = X.tolist()
        log.send(("begins", tuple(row)))
        if victim and (seen.update(["rows"]) or seen["rows"] == 7):
            log.send(("inside", tuple(row)))
            started.recv()  # until it is killed
        costs = error(X)
        log.send(("ends", tuple(row)))
        return costs

    seen: Counter[str] = Counter()
    started.recv()
    objectives = Objective("error", "", noted), OBJECTIVES[1]
    found = searched(Journal(location), objectives=objectives, evaluations=64)
    log.send(("found", found))


def _worker(location: str, *, victim: bool = False) -> tuple[BaseProcess, Wire, Wire]:
    ours, theirs = Pipe()
    start, started = Pipe()
    # forked, because importing torch anew takes seconds
    process = get_context("fork").Process(target=_work, args=(location, theirs, victim, started))
    process.start()
    theirs.close()
    return process, ours, start


def _told(log: Wire) -> list[tuple[str, Any]]:
    told = []
    while True:
        try:
            told.append(log.recv())
        except (EOFError, ConnectionResetError):
            return told


def _rows(told: list[tuple[str, Any]], what: str) -> list[tuple[int, ...]]:
    return [row for kind, row in told if kind == what]


def test_two_processes_evaluate_one_search_together_and_end_with_the_same(location: str) -> None:
    Journal(location).close()
    with ExitStack() as stack:
        workers = [_worker(location) for _ in range(2)]
        for process, _, start in workers:
            stack.callback(process.join)
            start.send("go")
        told = [_told(log) for _, log, _ in workers]
    assert [process.exitcode for process, _, _ in workers] == [0, 0]
    whole = searched(evaluations=64)
    for events in told:
        equal(events[-1][1], whole)
    evaluated = _rows(told[0], "ends") + _rows(told[1], "ends")
    assert sorted(evaluated) == sorted(tuple(row) for row in whole.X.tolist())  # each row once, by one of them


def test_of_two_processes_one_killed_no_evaluation_is_lost_or_doubled(location: str) -> None:
    Journal(location).close()
    victim, other = _worker(location, victim=True), _worker(location)
    victim[2].send("go")
    before = []
    while not before or before[-1][0] != "inside":  # in the middle of its seventh row
        before.append(victim[1].recv())
    other[2].send("go")
    assert other[1].recv()[0] == "begins"  # both are at work
    victim[0].kill()
    victim[0].join()
    assert victim[0].exitcode == -signal.SIGKILL
    told = _told(other[1])
    other[0].join()
    whole = searched(evaluations=64)
    found: Evaluated = told[-1][1]
    equal(found, whole)
    rows = sorted(tuple(row) for row in whole.X.tolist())
    assert sorted(_rows(before, "ends") + _rows(told, "ends")) == rows  # finished once each
    assert len(_rows(before, "ends")) == 6
    (interrupted,) = _rows(before, "inside")
    assert interrupted in _rows(told, "begins")  # what it was at was done by the other
    _check_journal(location, whole)


def _check_journal(location: str, whole: Evaluated) -> None:
    journal = Journal(location)
    with journal.database.reading() as connection:
        outcomes = connection.execute(select(OUTCOMES.c.round, OUTCOMES.c.row, OUTCOMES.c.worker)).all()
        claims = connection.execute(select(CLAIMS.c.round, CLAIMS.c.row, CLAIMS.c.attempt)).all()
        tells = connection.execute(select(TELLS.c.round, TELLS.c.rows)).all()
    assert sorted((number, row) for number, row, _ in outcomes) == [(1 + i // 8, i % 8) for i in range(len(whole))]
    assert len({worker for _, _, worker in outcomes}) == 2
    assert Counter(attempt for _, _, attempt in claims) == {1: len(whole), 2: 1}
    assert sorted(tuple(tell) for tell in tells) == [(number, 8) for number in range(1, 9)]
    record = SearchRecord(journal, identity())
    progress = record.progress()
    assert progress is not None
    assert (progress.rounds, progress.asked, progress.kept) == (8, 64, 64)
