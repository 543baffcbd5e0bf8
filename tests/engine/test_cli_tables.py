"""`hwnas table` on the table of a real run."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from tests.engine.commands import FAST, answered, failure, hwnas

Run = tuple[Path, Path]


def _arguments(run: Run) -> tuple[object, ...]:
    out, config = run
    return config, "--out", out


def test_a_check_says_how_wrong_the_table_is_and_how_fast_the_device(run: Run) -> None:
    done = hwnas("table", "check", *_arguments(run), "--patience", 2, "--json")
    assert done.returncode in (0, 5), done.stderr  # this machine may really have moved
    found = json.loads(done.stdout)
    assert found["verdict"] == ("moved" if done.returncode == 5 else "unchanged")
    low, high = found["interval"]
    assert low <= found["speed"] <= high
    assert found["allowed"] >= 0.05
    assert found["sentinels"] >= 3
    assert {"mape", "spearman", "within_10_percent", "noise_floor"} <= set(found["quality"])


@pytest.fixture
def slow(run: Run) -> Run:
    """The run with a table that claims half of what was measured: to it, the device takes twice as long now."""
    with sqlite3.connect(run[0] / "demo-fast" / "latency.sqlite") as database:
        for table in ("blocks", "networks"):
            rows = database.execute(f"select id, runs_ms from {table} where runs_ms is not null").fetchall()
            halved = [(json.dumps([ms / 2 for ms in json.loads(runs)]), number) for number, runs in rows]
            database.executemany(f"update {table} set runs_ms = ? where id = ?", halved)
    database.close()
    return run


def test_a_device_that_moved_ends_in_code_5_and_its_table_is_refused_until_it_is_rescaled(slow: Run) -> None:
    code, said = failure("table", "check", *_arguments(slow), "--patience", 2)
    assert code == 5
    assert "times as long as its table says" in said
    assert "--rescale" in said

    code, said = failure("search", *_arguments(slow))
    assert code == 5
    assert "hwnas table check --rescale" in said

    found = answered("table", "check", *_arguments(slow), "--patience", 2, "--rescale")
    assert found["rescaled_by"] == pytest.approx(found["speed"], rel=1e-3)
    assert found["speed"] > 1.3  # how far above two depends on what else runs here
    assert hwnas("search", *_arguments(slow)).returncode == 0


@pytest.mark.parametrize("suffix", ["json", "parquet"])
def test_a_table_moves_through_a_file(run: Run, tmp_path: Path, suffix: str) -> None:
    before = answered("table", "show", *_arguments(run))
    file = tmp_path / f"table.{suffix}"
    written = answered("table", "export", run[1], file, "--out", run[0])
    assert written["rows"] == before["blocks"] + before["networks"]
    elsewhere = ("--table", tmp_path / "elsewhere.sqlite")
    read = answered("table", "import", run[1], file, "--out", run[0], *elsewhere)
    assert read["rows"] == written["rows"]
    after = answered("table", "show", *_arguments(run), *elsewhere)
    assert after["rows"] == before["rows"]
    assert after["quality"] == before["quality"]


def test_a_foreign_file_is_named_and_nothing_is_written(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "table.parquet"
    file.write_bytes(b"PAR1 no table")
    code, said = failure("table", "import", run[1], file, "--out", run[0], "--table", tmp_path / "new.sqlite")
    assert code == 1
    assert str(file) in said
    assert not (tmp_path / "new.sqlite").exists()


def test_an_unknown_format_names_the_known_ones(run: Run, tmp_path: Path) -> None:
    code, said = failure("table", "export", run[1], tmp_path / "table.doc", "--out", run[0])
    assert code == 1
    assert ".parquet" in said


def test_a_budget_stops_a_build_and_the_next_one_goes_on(run: Run, tmp_path: Path) -> None:
    table = ("--table", tmp_path / "new.sqlite")
    first = hwnas("table", "build", *_arguments(run), *table, "--budget-minutes", "0.0001", "--json")
    assert first.returncode == 0, first.stderr
    assert "the time is up" in first.stderr
    whole = answered("table", "build", *_arguments(run), *table)
    assert whole["blocks"] == answered("table", "show", *_arguments(run))["blocks"]
    assert failure("table", "build", *_arguments(run), *table, "--budget-minutes", "0")[0] == 2


@pytest.fixture
def gap(run: Run) -> Run:
    """The run with a table that has lost a block."""
    with sqlite3.connect(run[0] / "demo-fast" / "latency.sqlite") as database:
        database.execute("delete from blocks where id = (select max(id) from blocks)")
    database.close()
    return run


def _with_miss(run: Run, policy: str) -> tuple[object, ...]:
    run[1].write_text(FAST.replace("[table]", f'[table]\nmiss = "{policy}"'))
    return _arguments(run)


def test_a_missing_block_is_an_error_by_default(gap: Run) -> None:
    code, said = failure("search", *_arguments(gap))
    assert code == 1
    assert "hwnas table build" in said


def test_a_missing_block_is_measured_where_that_is_asked_for(gap: Run) -> None:
    done = hwnas("search", *_with_miss(gap, "measure"))
    assert done.returncode == 0, done.stderr
    assert "1 blocks of host are missing and are measured now" in done.stderr
    assert hwnas("search", *_with_miss(gap, "error")).returncode == 0


def test_a_missing_block_is_estimated_where_that_is_asked_for(gap: Run) -> None:
    done = hwnas("search", *_with_miss(gap, "estimate"), "--json")
    assert done.returncode == 0, done.stderr
    assert "1 blocks were never measured and are estimated" in done.stderr
    assert all(point["latency_predicted_ms"] > 0 for point in json.loads(done.stdout)["points"])
    assert failure("search", *_with_miss(gap, "error"))[0] == 1  # an estimate fills no gap
