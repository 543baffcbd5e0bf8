"""Journals in SQLite and PostgreSQL."""

from __future__ import annotations

import pytest

from hwnas.engine.journal import Journal, JournalError
from hwnas.latency import LatencyTable, TableError


def test_what_was_written_is_read_by_another(location: str) -> None:
    journal = Journal(location)
    journal.write("a", "accuracy", (0, 1), 0.1 + 0.2)
    journal.write("a", "accuracy", (0, 1), 0.75)
    journal.write("a", "macs", (0, 1), 3.0)
    journal.close()
    again = Journal(location)
    assert again.read("a", "accuracy", [(0, 1), (1, 1)]) == {(0, 1): 0.1 + 0.2}
    assert again.read("b", "accuracy", [(0, 1)]) == {}
    assert again.count() == 2


def test_many_architectures_are_read_at_once(location: str) -> None:
    journal = Journal(location)
    asked = [(i // 100, i % 100) for i in range(1200)]
    journal.write("a", "accuracy", asked[-1], 1.0)
    assert journal.read("a", "accuracy", asked) == {asked[-1]: 1.0}


def test_a_journal_is_no_table_and_says_so(location: str) -> None:
    Journal(location).close()
    with pytest.raises(TableError, match="holds no latency table"):
        LatencyTable.open(location)


def test_a_database_that_is_not_there_is_told() -> None:
    with pytest.raises(JournalError, match=r"in SQLite or PostgreSQL, not in 'mysql'"):
        Journal("mysql://localhost/journal")
