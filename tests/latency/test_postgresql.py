"""What can be wrong with a PostgreSQL, each told in one line with its own cure and without the password."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable

import pytest

from hwnas.devices import Measurement
from hwnas.latency import BlockRow, Evidence, LatencyTable, TableError
from hwnas.latency.connections import as_url
from tests.latency.factories import conv_block
from tests.latency.toys import DEVICE, FINGERPRINT, MEASURED_AT, PROTOCOL
from tests.postgresql import PASSWORD, Server, running


def _open(location: str) -> LatencyTable:
    return LatencyTable.open_for(location, DEVICE, fingerprint=FINGERPRINT, protocol=PROTOCOL)


def _add(table: LatencyTable, channels: int) -> int:
    row = BlockRow(conv_block(channels), Evidence(Measurement((1.0,), PROTOCOL, MEASURED_AT)))
    return table.add([row], fingerprint=FINGERPRINT, protocol=PROTOCOL)


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_postgresql_is_spoken_to_through_psycopg(scheme: str) -> None:
    assert as_url(f"{scheme}://me@host/tables").drivername == "postgresql+psycopg"


def _nobody_there(server: Server) -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return Server(probe.getsockname()[1]).url("tables")


def _wrong_password(server: Server) -> str:
    return server.url("postgres", password="geheim")


def _no_database(server: Server) -> str:
    return server.url("latencies")


def _no_rights(server: Server) -> str:
    server.run(f"DROP ROLE IF EXISTS guest; CREATE ROLE guest LOGIN PASSWORD '{PASSWORD}'")
    return server.url("postgres", user="guest")


@pytest.mark.parametrize(
    ("where", "told"),
    [
        (_nobody_there, "no PostgreSQL server answers at .*start it, or correct host and port"),
        (_wrong_password, r"refuses the user 'hwnas'.*right password into the URL or into ~/.pgpass"),
        (_no_database, "no database 'latencies': make it with `createdb latencies`"),
        (_no_rights, "lets 'guest' do too little .*GRANT"),
    ],
)
def test_what_is_wrong_is_told_with_its_cure(
    postgresql_server: Server, where: Callable[[Server], str], told: str
) -> None:
    with pytest.raises(TableError, match=told) as error:
        _open(where(postgresql_server))
    assert "\n" not in str(error.value)
    assert PASSWORD not in str(error.value)
    assert "geheim" not in str(error.value)


def test_an_empty_database_holds_no_table(postgresql: str) -> None:
    with pytest.raises(TableError, match=r"holds no latency table .*hwnas table build"):
        LatencyTable.open(postgresql)


def test_a_missing_driver_is_told_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(TableError, match=r"driver psycopg, which is not there: pip install 'hwnas\[postgres\]'"):
        LatencyTable.open("postgresql://localhost/tables")


def test_the_password_is_not_shown(postgresql: str) -> None:
    assert PASSWORD in postgresql
    assert PASSWORD not in repr(_open(postgresql))


def test_a_connection_that_was_cut_while_idle_is_made_again(postgresql: str, postgresql_server: Server) -> None:
    table = _open(postgresql)
    _add(table, 8)
    postgresql_server.run(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname LIKE 'test_%'",
    )
    assert _add(table, 16) == 1
    assert len(table.block_rows()) == 2


def test_a_server_that_went_away_is_told_and_loses_nothing() -> None:
    with running() as server:
        server.run("CREATE DATABASE tables")
        table = _open(server.url("tables"))
        _add(table, 8)
    with pytest.raises(TableError, match=r"no PostgreSQL server answers|went away"):
        _add(table, 16)


def test_a_table_that_stays_locked_is_told(postgresql: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import psycopg

    table = _open(postgresql)
    monkeypatch.setattr("hwnas.latency.database.LOCK_WAIT_S", 0.2)
    with psycopg.connect(postgresql) as other:
        other.execute("SELECT * FROM latency_tables FOR UPDATE")
        with pytest.raises(TableError, match=r"stayed locked .*end the process that holds it"):
            _add(table, 8)
    assert _add(table, 8) == 1
