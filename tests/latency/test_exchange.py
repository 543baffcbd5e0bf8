"""Tables that travel as files: without loss, whole or not at all, and without running anything."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hwnas.devices import DeviceError, Measurement
from hwnas.latency import Block, BlockRow, DriftCheck, Evidence, LatencyTable, NetworkRow, TableError, build
from hwnas.latency.exchange import Imported, export_table, import_table
from hwnas.latency.rows import compact
from tests.latency.factories import conv_block
from tests.latency.toys import DEVICE, FINGERPRINT, MEASURED_AT, PROTOCOL, ToyCompiler, ToyRunner

LOSSLESS = [".json", ".parquet"]


def _timed(*runs_ms: float, drift: tuple[float, ...] = (), energy_mj: float | None = None) -> Measurement:
    return Measurement(runs_ms, PROTOCOL, MEASURED_AT, drift, energy_mj=energy_mj)


def _row(channels: int, *runs_ms: float) -> BlockRow:
    return BlockRow(conv_block(channels), Evidence(_timed(*runs_ms), "key", 1.5))


def _full(location: str | Path) -> LatencyTable:
    """A table with something in every column."""
    table = LatencyTable.open_for(location, DEVICE, fingerprint=FINGERPRINT, protocol=PROTOCOL)
    network = NetworkRow("a", "fit", (conv_block(8), conv_block(16)), Evidence(_timed(3.0, 1 / 3), "network"))
    failed = [BlockRow(conv_block(c), Evidence(f"did not compile: {c}")) for c in (1, 2)]
    table.add([_row(8, 1.0, 0.1 + 0.2), *failed, network], fingerprint=FINGERPRINT, protocol=PROTOCOL)
    table.forget_failures()
    drifting = BlockRow(conv_block(32), Evidence(_timed(1.0, 2.0, 3.0, 4.0, drift=(0.9, 1.1), energy_mj=0.7)))
    odd = Block.of("other.factory", (1, 3, 8, 8), (2, 4), dtype="int8", flag=True, scale=1.0, count=1, name="x, \u00e9")
    table.add(
        [_row(2, 5.0), drifting, BlockRow(odd, Evidence("did not run"))],
        fingerprint=replace(FINGERPRINT, isa=FINGERPRINT.isa, load_1m=0.5, pinned_to=(1, 2)),
        protocol=replace(PROTOCOL, seed=7),
        after=replace(FINGERPRINT, clock_mhz=600.0),
        speed=1.25,
        anchors=[(conv_block(8).key, _timed(1.3, 1.2)), (network.key, _timed(4.0, drift=(0.5,)))],
    )
    table.note_check(DriftCheck(FINGERPRINT, 1.1, 1.05, 1.15, 12, "moved", True, MEASURED_AT))
    return table


def _content(table: LatencyTable) -> dict[str, object]:
    return {
        "device": (table.device, table.fingerprint, table.protocol),
        "blocks": table.block_rows(),
        "networks": table.networks(),
        "superseded": table.superseded(),
        "visits": table.visits(),
        "checks": table.checks(),
        "latencies": table.latencies_ms(),
    }


@pytest.fixture
def source(tmp_path: Path) -> LatencyTable:
    return _full(tmp_path / "source.sqlite")


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_a_table_comes_back_equal(location: str, source: LatencyTable, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"table{suffix}"
    assert export_table(source, path).rows == 9
    assert import_table(path, location) == Imported("toy", 9, 2)
    table = LatencyTable.open(location)
    assert _content(table) == _content(source)
    assert [type(value) for _, value in table.block_rows()[3].block.kwargs] == [int, bool, str, float]


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_a_table_of_postgresql_comes_back_equal(postgresql: str, tmp_path: Path, suffix: str) -> None:
    source = _full(postgresql)
    export_table(source, tmp_path / f"table{suffix}")
    import_table(tmp_path / f"table{suffix}", tmp_path / "copy.sqlite")
    assert _content(LatencyTable.open(tmp_path / "copy.sqlite")) == _content(source)


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_a_second_import_adds_nothing(location: str, source: LatencyTable, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"table{suffix}"
    export_table(source, path)
    import_table(path, location)
    assert import_table(path, location) == Imported("toy", 0, 0)
    assert _content(LatencyTable.open(location)) == _content(source)


def test_a_table_that_has_grown_is_brought_up_to_date(location: str, tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    source = LatencyTable.open_for(tmp_path / "s.sqlite", DEVICE, fingerprint=FINGERPRINT, protocol=PROTOCOL)
    failed = [BlockRow(conv_block(c), Evidence("hangs")) for c in (1, 2)]
    source.add([*failed, _row(8, 1.0)], fingerprint=FINGERPRINT, protocol=PROTOCOL)
    export_table(source, path)
    import_table(path, location)
    source.forget_failures()
    source.add([_row(2, 4.0)], fingerprint=FINGERPRINT, protocol=PROTOCOL)
    export_table(source, path)
    assert import_table(path, location) == Imported("toy", 1, 1)
    assert _content(LatencyTable.open(location)) == _content(source)


def test_what_was_measured_on_both_sides_stays_as_it_is(location: str, source: LatencyTable, tmp_path: Path) -> None:
    export_table(source, tmp_path / "old.json")
    import_table(tmp_path / "old.json", location)
    copy = LatencyTable.open_for(location, DEVICE, fingerprint=FINGERPRINT, protocol=PROTOCOL)
    copy.add([_row(64, 1.0)], fingerprint=FINGERPRINT, protocol=PROTOCOL)
    source.add([_row(64, 9.0), _row(128, 2.0)], fingerprint=FINGERPRINT, protocol=PROTOCOL)
    export_table(source, tmp_path / "new.json")
    assert import_table(tmp_path / "new.json", location) == Imported("toy", 1, 1)
    assert copy.measurement(conv_block(64)).runs_ms == (1.0,)
    assert copy.measurement(conv_block(128)).runs_ms == (2.0,)


def test_tables_begun_apart_are_not_mixed(source: LatencyTable, location: str, tmp_path: Path) -> None:
    own = LatencyTable.open_for(location, DEVICE, fingerprint=FINGERPRINT, protocol=PROTOCOL)
    own.add([_row(4, 1.0)], fingerprint=FINGERPRINT, protocol=PROTOCOL)
    before = _content(own)
    export_table(source, tmp_path / "t.json")
    with pytest.raises(TableError, match=r"another table of 'toy'.*another name"):
        import_table(tmp_path / "t.json", location)
    assert _content(own) == before
    assert import_table(tmp_path / "t.json", location, name="colleague's") == Imported("colleague's", 9, 2)
    assert LatencyTable.open(location, device="colleague's").block_rows() == source.block_rows()
    with pytest.raises(TableError, match="has this table already, under the name"):
        import_table(tmp_path / "t.json", location, name="a third")


def test_parquet_is_read_by_pandas(source: LatencyTable, tmp_path: Path) -> None:
    export_table(source, tmp_path / "t.parquet")
    frame = pd.read_parquet(tmp_path / "t.parquet")
    blocks = frame[(frame["kind"] == "block") & frame["superseded_at"].isna()]
    expected = [
        None if isinstance(row.evidence.result, str) else row.evidence.result.latency_ms for row in source.block_rows()
    ]
    assert [None if pd.isna(ms) else ms for ms in blocks["latency_ms"]] == pytest.approx(expected)


def test_an_unknown_factory_is_kept_and_named_when_it_is_built(source: LatencyTable, tmp_path: Path) -> None:
    export_table(source, tmp_path / "t.json")
    import_table(tmp_path / "t.json", tmp_path / "copy.sqlite")
    copy = LatencyTable.open_for(tmp_path / "copy.sqlite", DEVICE, fingerprint=FINGERPRINT, protocol=PROTOCOL)
    foreign = next(row.block for row in copy.block_rows() if row.block.factory == "other.factory")
    copy.forget_failures()
    with pytest.raises(LookupError, match=r"no installed space has registered a block factory 'other.factory'"):
        build(copy, [foreign], compiler=ToyCompiler(), runner=ToyRunner(), protocol=PROTOCOL)
    assert foreign not in {row.block for row in copy.block_rows()}


# ---- files that are not what they should be --------------------------------------------------------------------------


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def _changed(path: Path) -> None:
    if path.suffix == ".json":
        path.write_text(path.read_text().replace('"runs_ms":[1.0', '"runs_ms":[1.5'))
        return
    table = pq.read_table(path)
    table = table.set_column(table.column_names.index("energy_mj"), "energy_mj", pa.array([9.0] * len(table)))
    pq.write_table(table, path)


def _garbage(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 8)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("suffix", LOSSLESS)
@pytest.mark.parametrize("spoil", [_cut, _changed, _garbage, _empty])
def test_a_spoilt_file_is_told_in_one_line_and_leaves_no_trace(
    source: LatencyTable, tmp_path: Path, suffix: str, spoil: Callable[[Path], None]
) -> None:
    path = tmp_path / f"table{suffix}"
    export_table(source, path)
    spoil(path)
    with pytest.raises(TableError, match=r"damaged or no latency table.*export it again") as error:
        import_table(path, tmp_path / "new" / "copy.sqlite")
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_a_flipped_bit_is_refused_or_harmless(source: LatencyTable, tmp_path: Path, suffix: str) -> None:
    path, spoilt = tmp_path / f"table{suffix}", tmp_path / f"spoilt{suffix}"
    export_table(source, path)
    content, rng = path.read_bytes(), np.random.default_rng(0)
    refused = 0
    for at, bit in zip(rng.integers(len(content), size=60), rng.integers(8, size=60), strict=True):
        spoilt.write_bytes(content[:at] + bytes([content[at] ^ (1 << bit)]) + content[at + 1 :])
        (tmp_path / "copy.sqlite").unlink(missing_ok=True)
        try:
            import_table(spoilt, tmp_path / "copy.sqlite")
        except TableError:
            refused += 1
        else:
            assert _content(LatencyTable.open(tmp_path / "copy.sqlite")) == _content(source)
    assert refused > 20


def _sealed_again(path: Path, change: Callable[[dict[str, object]], object]) -> None:
    """Somebody else's file: well formed, with a checksum that is right, and a content that is wrong."""
    data = json.loads(path.read_text())
    change(data)
    del data["sha256"]
    path.write_text(json.dumps({**data, "sha256": sha256(compact(data).encode()).hexdigest()}))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda d: d.update(layout=9), "layout 9 and this hwnas reads layout 1"),
        (lambda d: d["rows"][0].update(key="0" * 16), "not made of the blocks that it lists"),
        (lambda d: d["rows"][0].update(visit=5), "of visit 5, and there are 2"),
        (lambda d: d["rows"][0].update(runs_ms=[]), "at least one run"),
        (lambda d: d["rows"][0].update(runs_ms=["fast"]), "rows.0.runs_ms.0: .*valid number"),
        (lambda d: d["rows"][0].update(drift=[1.0, 1.0, 1.0]), "do not fall into 3 rounds"),
        (lambda d: d["rows"][0].update(error="too"), "exactly one of runs, an error and a quoted latency"),
        (lambda d: d["rows"][0].update(role="fit"), "networks have a label and a role"),
        (lambda d: d["rows"][0]["blocks"][0].update(inputs=[[1, -8, 4, 4]]), "inputs.0.1"),
        (lambda d: d["fingerprint"].update(temperature=70), "fingerprint.temperature: Unexpected"),
        (lambda d: d["device"].pop("name"), "device.name: "),
        (lambda d: d["visits"][1].update(speed=0), "visits.1.speed"),
    ],
)  # fmt: skip
def test_a_wellformed_file_that_makes_no_sense_is_refused(
    source: LatencyTable, tmp_path: Path, change: Callable[[dict[str, object]], object], told: str
) -> None:
    export_table(source, tmp_path / "t.json")
    _sealed_again(tmp_path / "t.json", change)
    with pytest.raises(TableError, match=told) as error:
        import_table(tmp_path / "t.json", tmp_path / "copy.sqlite")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "copy.sqlite").exists()


def test_an_import_that_fails_in_the_middle_adds_nothing(
    source: LatencyTable, location: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_table(source, tmp_path / "t.json")
    twice = {"n": 0}

    def fail(*arguments: object) -> int:
        twice["n"] += 1
        if twice["n"] == 2:
            raise KeyboardInterrupt
        return 1

    with monkeypatch.context() as patch:
        patch.setattr("hwnas.latency.exchange.transfer._insert_rows", fail)
        with pytest.raises(KeyboardInterrupt):
            import_table(tmp_path / "t.json", location)
    with pytest.raises(DeviceError, match="tables of no device"):
        LatencyTable.open(location)


def test_a_file_is_replaced_whole_or_stays(
    source: LatencyTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "t.json"
    export_table(source, path)
    before = path.read_bytes()

    def torn(document: object, path: Path) -> None:
        path.write_text("{")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("hwnas.latency.exchange.json_file.write", torn)
        with pytest.raises(TableError, match="No space left on device"):
            export_table(source, path)
    assert path.read_bytes() == before
    source.add([_row(256, 1.0)], fingerprint=FINGERPRINT, protocol=PROTOCOL)
    export_table(source, path)
    assert path.read_bytes() != before
    assert sorted(file.name for file in tmp_path.glob("*t.json*")) == ["t.json"]


def test_files_that_cannot_be_are_told(source: LatencyTable, tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"no table format ends in '.csv': choose one of .json, .parquet"):
        export_table(source, tmp_path / "t.csv")
    with pytest.raises(TableError, match=r"there is no .*nowhere"):
        export_table(source, tmp_path / "nowhere" / "t.json")
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(TableError, match="name a file you may read and write"):
        export_table(source, tmp_path / "folder.json")
    with pytest.raises(TableError, match=r"there is no .*absent.parquet"):
        import_table(tmp_path / "absent.parquet", tmp_path / "copy.sqlite")


@pytest.mark.parametrize(("suffix", "package"), [(".parquet", "pyarrow"), (".yaml", "yaml")])
def test_a_missing_package_is_told_with_the_extra(
    source: LatencyTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(TableError, match=rf"{suffix} needs {package}: pip install 'hwnas\[exchange\]'"):
        export_table(source, tmp_path / f"t{suffix}", name_of=str)
    assert list(tmp_path.glob(f"*t{suffix}*")) == []
