"""Journals in SQLite and PostgreSQL."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import update

from hwnas.engine.journal import (
    EVALUATIONS,
    SCHEMA_VERSION,
    SCHEMAS,
    Journal,
    JournalError,
    _evaluations_alone,
    earlier_evaluations,
)
from hwnas.latency import LatencyTable, TableError
from hwnas.latency.database import Database
from tests.engine.searches import equal, searched


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


# ---- layouts --------------------------------------------------------------------------------------------------------


def _older(location: str) -> None:
    """A journal as they were before searches were recorded: evaluations alone, without a version."""
    database = Database(location, create=True, layout=_evaluations_alone())
    row = {"context": "a", "metric": "accuracy", "architecture": "[0, 1]", "value": 0.5, "evaluated_at": "2026-11-01"}
    with database.writing() as connection:
        database.insert_new(connection, EVALUATIONS, [row])
    database.close()


def test_a_journal_of_the_older_layout_is_read_and_searches_are_recorded_in_it(location: str) -> None:
    _older(location)
    assert earlier_evaluations(location, "a", "accuracy")[0].tolist() == [[0, 1]]  # before anything is changed in it
    journal = Journal(location)
    assert journal.read("a", "accuracy", [(0, 1)]) == {(0, 1): 0.5}
    equal(searched(journal), searched())


def test_a_journal_of_a_newer_layout_is_refused(location: str) -> None:
    journal = Journal(location)
    with journal.database.writing() as connection:
        connection.execute(update(SCHEMAS).values(version=SCHEMA_VERSION + 1))
    journal.close()
    with pytest.raises(JournalError, match=f"has layout {SCHEMA_VERSION + 1} and this hwnas reads layout"):
        Journal(location)


@pytest.mark.parametrize("damage", ["half", "middle", "text"])
def test_a_damaged_journal_is_named_with_the_cure(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "journal.sqlite"
    journal = Journal(str(path))
    searched(journal, evaluations=60)
    journal.close()
    whole = path.read_bytes()
    hole = whole[: len(whole) // 3] + b"\xff" * 9000 + whole[len(whole) // 3 + 9000 :]
    path.write_bytes({"half": whole[: len(whole) // 2], "middle": hole, "text": b"my notes\n" * 900}[damage])
    with pytest.raises(JournalError, match=r"journal.sqlite: damaged or no journal .*: restore a copy"):
        searched(Journal(str(path)), evaluations=60)
