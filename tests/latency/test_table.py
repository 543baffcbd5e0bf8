from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hwnas.devices import Device, DeviceError, Fingerprint, Measurement, Protocol
from hwnas.latency import BlockRow, Evidence, LatencyTable, NetworkRow, TableError, schema
from hwnas.latency.rows import NetworkRole
from tests.latency.factories import conv_block
from tests.latency.toys import DEVICE, FINGERPRINT, MEASURED_AT, PROTOCOL

Location = Path | str


def _open(
    location: Location,
    device: Device = DEVICE,
    fingerprint: Fingerprint = FINGERPRINT,
    protocol: Protocol = PROTOCOL,
) -> LatencyTable:
    return LatencyTable.open_for(location, device, fingerprint=fingerprint, protocol=protocol)


def _row(channels: int, *runs_ms: float) -> BlockRow:
    return BlockRow(conv_block(channels), Evidence(Measurement(runs_ms, PROTOCOL, MEASURED_AT), "key", 1.5))


def _failed(channels: int) -> BlockRow:
    return BlockRow(conv_block(channels), Evidence("did not compile: too small"))


def _network(label: str, role: NetworkRole, *channels: int, error: str = "") -> NetworkRow:
    blocks = tuple(conv_block(c) for c in channels)
    return NetworkRow(label, role, blocks, Evidence(error or Measurement((5.0,), PROTOCOL, MEASURED_AT), "key"))


def _add(table: LatencyTable, *rows: BlockRow | NetworkRow) -> int:
    return table.add(rows, fingerprint=FINGERPRINT, protocol=PROTOCOL)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "latency.sqlite"


@pytest.fixture
def table(location: str) -> Iterator[LatencyTable]:
    table = _open(location)
    yield table
    table.close()


def test_what_was_added_is_read_again_by_another_process(location: str, table: LatencyTable) -> None:
    _add(table, _row(8, 1.0, 2.0, 3.0, 4.0))
    table.close()
    again = LatencyTable.open(location)
    assert again.measurement(conv_block(8)) == Measurement((1.0, 2.0, 3.0, 4.0), PROTOCOL, MEASURED_AT)
    assert again.device == DEVICE
    assert again.fingerprint == FINGERPRINT
    assert again.block_rows() == [_row(8, 1.0, 2.0, 3.0, 4.0)]


def test_a_table_is_opened_by_path_and_by_url(path: Path) -> None:
    table = _open(path)
    _add(table, _row(8, 1.0))
    assert LatencyTable.open(f"sqlite:///{path}").latencies_ms() == {conv_block(8): 1.0}
    assert LatencyTable.open(str(path)).latencies_ms() == {conv_block(8): 1.0}


def test_a_block_is_measured_once(table: LatencyTable) -> None:
    assert _add(table, _row(8, 1.0)) == 1
    assert _add(table, _row(8, 9.0), _row(16, 2.0)) == 1
    assert table.latencies_ms() == {conv_block(8): 1.0, conv_block(16): 2.0}


def test_a_missing_block_is_an_error_not_a_zero(table: LatencyTable) -> None:
    with pytest.raises(LookupError, match=r"test.conv.*not in the table of 'toy'.*hwnas table build"):
        table.measurement(conv_block(8))


def test_a_failed_block_has_a_reason_and_no_latency(table: LatencyTable) -> None:
    _add(table, _failed(8), _row(16, 2.0))
    assert table.failures() == {conv_block(8): "did not compile: too small"}
    assert table.latencies_ms() == {conv_block(16): 2.0}
    with pytest.raises(LookupError, match="tried on 'toy' and failed: did not compile: too small"):
        table.measurement(conv_block(8))


def test_missing_is_what_nobody_tried_once_each_in_order(table: LatencyTable) -> None:
    _add(table, _failed(8), _row(16, 2.0))
    asked = [conv_block(c) for c in (64, 8, 16, 32, 64)]
    assert table.missing(asked) == [conv_block(64), conv_block(32)]


def test_forgotten_failures_are_missing_again_and_kept_as_evidence(table: LatencyTable) -> None:
    _add(table, _failed(8), _row(16, 2.0), _network("a", "fit", 8, 16, error="hangs"))
    assert table.forget_failures() == 2
    assert table.missing([conv_block(8), conv_block(16)]) == [conv_block(8)]
    assert (table.failures(), table.networks()) == ({}, [])
    assert table.superseded() == [_failed(8), _network("a", "fit", 8, 16, error="hangs")]
    assert table.forget_failures() == 0


def test_the_attempt_after_a_forgotten_failure_counts(table: LatencyTable) -> None:
    _add(table, _failed(8))
    table.forget_failures()
    _add(table, _failed(8))
    table.forget_failures()
    assert _add(table, _row(8, 3.0)) == 1
    assert table.block_rows() == [_row(8, 3.0)]
    assert table.superseded() == [_failed(8), _failed(8)]


def test_a_failure_gives_way_to_a_success_and_not_the_other_way_round(table: LatencyTable) -> None:
    _add(table, _failed(8), _row(16, 2.0))
    assert _add(table, _row(8, 1.0), _failed(16)) == 1
    assert table.latencies_ms() == {conv_block(8): 1.0, conv_block(16): 2.0}
    assert table.superseded() == [_failed(8)]


def test_an_error_that_is_no_text_is_kept_as_text(table: LatencyTable) -> None:
    _add(table, BlockRow(conv_block(8), Evidence("crashed with \0 and \udcff")))
    assert table.failures() == {conv_block(8): "crashed with \N{REPLACEMENT CHARACTER} and ?"}


def test_networks_are_kept_by_role(table: LatencyTable) -> None:
    _add(table, _network("a", "fit", 8, 16), _network("b", "check", 16, 8))
    assert [row.label for row in table.networks("fit")] == ["a"]
    assert table.networks("check") == [_network("b", "check", 16, 8)]
    assert len(table.networks()) == 2


def test_a_network_is_its_blocks_in_order_whatever_its_label(table: LatencyTable) -> None:
    assert _add(table, _network("a", "fit", 8, 16), _network("also a", "check", 8, 16)) == 1


def test_one_database_holds_many_devices(location: str) -> None:
    first, second = _open(location), _open(location, replace(DEVICE, name="other"))
    _add(first, _row(8, 1.0))
    assert second.missing([conv_block(8)]) == [conv_block(8)]
    _add(second, _row(8, 2.0))
    assert LatencyTable.open(location, device="other").latencies_ms() == {conv_block(8): 2.0}
    with pytest.raises(DeviceError, match="tables of other, toy: name one"):
        LatencyTable.open(location)
    with pytest.raises(DeviceError, match="'third' is not among them"):
        LatencyTable.open(location, device="third")


def test_another_chip_may_not_use_the_table(location: str, table: LatencyTable) -> None:
    other = replace(FINGERPRINT, soc="another")
    with pytest.raises(DeviceError, match=r"soc 'toy' there, 'another' here.*hwnas table build") as told:
        _open(location, fingerprint=other)
    assert FINGERPRINT.identity in str(told.value)
    assert other.identity in str(told.value)
    with pytest.raises(DeviceError):
        table.add([_row(8, 1.0)], fingerprint=other, protocol=PROTOCOL)


def test_more_rounds_measure_the_same_thing(location: str, table: LatencyTable) -> None:
    _open(location, protocol=replace(PROTOCOL, rounds=50, repeats=1, seed=3))


def test_a_free_process_measures_another_thing_than_a_pinned_one(location: str, table: LatencyTable) -> None:
    with pytest.raises(DeviceError, match=r"pinned, niceness -10, caches hot' there, '1 thread.s., free"):
        _open(location, protocol=replace(PROTOCOL, pinned=False))


def test_the_state_of_the_device_may_change(location: str, table: LatencyTable) -> None:
    _open(location, fingerprint=replace(FINGERPRINT, load_1m=7.0, governor="powersave"))


def test_a_frame_has_a_line_a_block(table: LatencyTable) -> None:
    _add(table, _row(8, 1.0, 2.0, 3.0), _failed(16))
    frame = table.to_frame()
    assert list(frame["latency_ms"].fillna(-1)) == [2.0, -1.0]
    assert frame["arguments"][0] == "channels=8"
    assert frame["inputs"][0] == "1x8x4x4"
    assert frame["error"][1] == "did not compile: too small"


def test_tails_are_told_from_200_runs_and_outliers_are_counted(table: LatencyTable) -> None:
    steady = [1.0 + 0.001 * (i % 7) for i in range(200)]
    _add(table, _row(8, *steady[:199]), _row(16, *steady[:198], 5.0, 9.0))
    few, many = table.to_frame().to_dict("records")
    assert math.isnan(few["p99_ms"])
    assert (few["outliers"], many["outliers"]) == (0, 2)
    assert many["p50_ms"] == pytest.approx(1.003)
    assert many["p90_ms"] == pytest.approx(1.006)
    assert 1.006 < many["p99_ms"] < 9.0
    assert many["runs"] == 200


def test_energy_is_kept_where_it_is_known(table: LatencyTable) -> None:
    spent = BlockRow(conv_block(8), Evidence(Measurement((1.0,), PROTOCOL, MEASURED_AT, energy_mj=2.5)))
    _add(table, spent, _row(16, 1.0))
    assert table.block_rows() == [spent, _row(16, 1.0)]
    assert table.to_frame()["energy_mj"][0] == 2.5


def test_an_empty_table_is_an_empty_frame(table: LatencyTable) -> None:
    assert len(table.to_frame()) == 0
    assert "latency_ms" in table.to_frame().columns


def _text(path: Path) -> None:
    path.write_text("block,ms\n" * 200)


def _foreign(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE songs (title TEXT)")
    connection.close()


def _cut(path: Path) -> None:
    table = _open(path)
    _add(table, *(_row(8 + i, *map(float, range(1, 200))) for i in range(50)))
    table.close()
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def _future(path: Path) -> None:
    _open(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute(f"UPDATE hwnas_latency_schema SET version = {schema.SCHEMA_VERSION + 1}")
    connection.close()


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (_text, "damaged or no latency table.*hwnas table build"),
        (_foreign, "holds no latency table.*hwnas table build"),
        (_cut, "damaged or no latency table.*restore a copy"),
        (_future, "has layout 3 and this hwnas reads layout 2"),
    ],
)
def test_a_spoilt_file_is_told_in_one_line_with_the_cure(
    tmp_path: Path, spoil: Callable[[Path], None], told: str
) -> None:
    path = tmp_path / "latency.sqlite"
    spoil(path)
    with pytest.raises(TableError, match=told) as error:
        LatencyTable.open(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


def test_a_table_that_is_not_there_is_not_made_by_reading(path: Path) -> None:
    with pytest.raises(TableError, match=r"there is no latency table at .*hwnas table build"):
        LatencyTable.open(path)
    assert not path.parent.exists()


def test_a_folder_that_cannot_be_written_is_told_with_the_cure() -> None:
    with pytest.raises(TableError, match="name a folder you may write to"):
        _open(Path("/proc/latency.sqlite"))
    with pytest.raises(TableError, match="name a folder you may write to"):
        _open(Path("/proc/folder/latency.sqlite"))


def test_a_table_in_a_folder_that_cannot_be_written_can_be_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = _open(path)
    _add(table, _row(8, 1.0))
    table.close()
    monkeypatch.setattr("os.access", lambda path, mode: False)
    read = LatencyTable.open(path)
    assert read.latencies_ms() == {conv_block(8): 1.0}
    with pytest.raises(TableError, match="name a folder you may write to"):
        _add(read, _row(16, 1.0))


@pytest.mark.parametrize(
    ("location", "told"),
    [
        ("mysql://localhost/tables", "SQLite or PostgreSQL, not in 'mysql'"),
        ("postgresql+teleport://localhost/tables", "no driver 'postgresql.teleport'"),
        ("://", "no database URL"),
    ],
)
def test_other_databases_are_refused_with_the_cure(location: str, told: str) -> None:
    with pytest.raises(TableError, match=rf"{told}.*write .*postgresql://USER@HOST"):
        LatencyTable.open(location)


def test_a_failed_transaction_leaves_nothing(table: LatencyTable) -> None:
    with pytest.raises(AttributeError):
        _add(table, _row(8, 1.0), BlockRow(None, Evidence("x")))  # type: ignore[arg-type]
    assert table.block_rows() == []
