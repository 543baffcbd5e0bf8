"""Lookup tables of Once-for-All, out and in."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from hwnas.devices import DeviceError, Measurement
from hwnas.latency import Block, BlockRow, DriftCheck, Evidence, LatencyTable, Quoted, TableError
from hwnas.latency.exchange import Exported, Imported, export_table, import_table
from tests.latency.factories import conv_block
from tests.latency.toys import DEVICE, FINGERPRINT, MEASURED_AT, PROTOCOL

THEIRS = """
expanded_conv-input:112x112x16-output:112x112x16-expand:16-kernel:3-stride:1-idskip:1-se:0-hs:0:
  count: 100
  mean: 2.5
  std: 0.125
conv-8: {mean: 1, count: 7}
conv-16: {mean: 2.0}
"""


def _name_of(block: Block) -> str | None:
    channels = dict(block.kwargs)["channels"]
    return None if channels == 64 else f"conv-{channels}"


def _block_of(name: str) -> Block | None:
    kind, _, channels = name.partition("-")
    return conv_block(int(channels)) if kind == "conv" else None


def _row(channels: int, *runs_ms: float) -> BlockRow:
    return BlockRow(conv_block(channels), Evidence(Measurement(runs_ms, PROTOCOL, MEASURED_AT)))


@pytest.fixture
def table(tmp_path: Path) -> LatencyTable:
    table = LatencyTable.open_for(tmp_path / "s.sqlite", DEVICE, fingerprint=FINGERPRINT, protocol=PROTOCOL)
    failed = BlockRow(conv_block(32), Evidence("hangs"))
    rows = [_row(8, 1.0, 2.0, 3.0, 2.0, 90.0), _row(16, 4.0), failed, _row(64, 1.0)]
    table.add(rows, fingerprint=FINGERPRINT, protocol=PROTOCOL)
    return table


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    path = tmp_path / "160_lookup_table.yaml"
    path.write_text(THEIRS)
    return path


def test_blocks_with_a_name_there_are_written_without_outliers(table: LatencyTable, tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    left_out = tuple(str(conv_block(channels)) for channels in (32, 64))
    assert export_table(table, path, name_of=_name_of) == Exported(2, left_out)
    assert yaml.safe_load(path.read_text()) == {
        "conv-8": {"mean": 2.0, "std": pytest.approx(0.5**0.5), "count": 4},
        "conv-16": {"mean": 4.0, "std": 0.0, "count": 1},
    }
    assert "'toy': toy, tvm 1" in path.read_text().splitlines()[0]


def test_a_rescaled_table_is_written_as_the_device_is_now(table: LatencyTable, tmp_path: Path) -> None:
    table.note_check(DriftCheck(FINGERPRINT, 2.0, 1.9, 2.1, 12, "moved", True, MEASURED_AT))
    export_table(table, tmp_path / "t.yaml", name_of=_name_of)
    assert yaml.safe_load((tmp_path / "t.yaml").read_text())["conv-8"]["mean"] == 4.0


def test_a_table_of_theirs_becomes_quoted_latencies(theirs: Path, location: str) -> None:
    mbconv = THEIRS.split(maxsplit=1)[0].rstrip(":")
    assert import_table(theirs, location, name="note10", block_of=_block_of) == Imported("note10", 2, 1, (mbconv,))
    table = LatencyTable.open(location)
    assert [row.evidence.result for row in table.block_rows()] == [Quoted(1.0, None, 7), Quoted(2.0)]
    assert table.latencies_ms() == {conv_block(8): 1.0, conv_block(16): 2.0}
    assert table.first_visit_rows() == []
    frame = table.to_frame()
    assert list(frame["latency_ms"]) == [1.0, 2.0]
    assert frame["low_ms"].isna().all()
    with pytest.raises(LookupError, match="has a latency and no runs: it was imported"):
        table.measurement(conv_block(8))


def test_where_such_a_table_comes_from_is_in_its_fingerprint(theirs: Path, location: str) -> None:
    import_table(theirs, location, name="note10", block_of=_block_of)
    table = LatencyTable.open(location)
    assert table.fingerprint.compiler.startswith("Once-for-All file 160_lookup_table.yaml, sha256 ")
    assert table.protocol.runs == 0
    with pytest.raises(DeviceError, match="was measured on"):
        table.add([_row(32, 1.0)], fingerprint=FINGERPRINT, protocol=PROTOCOL)


def test_a_second_import_adds_only_what_has_become_known(theirs: Path, location: str) -> None:
    def fewer(name: str) -> Block | None:
        return _block_of(name) if name == "conv-8" else None

    assert import_table(theirs, location, name="note10", block_of=fewer).rows == 1
    assert import_table(theirs, location, name="note10", block_of=_block_of).rows == 1
    assert import_table(theirs, location, name="note10", block_of=_block_of) == Imported(
        "note10", 0, 0, (THEIRS.split(maxsplit=1)[0].rstrip(":"),)
    )


@pytest.mark.parametrize("suffix", [".json", ".parquet", ".yaml"])
def test_quoted_latencies_travel_on(theirs: Path, tmp_path: Path, suffix: str) -> None:
    import_table(theirs, tmp_path / "a.sqlite", name="note10", block_of=_block_of)
    first = LatencyTable.open(tmp_path / "a.sqlite")
    export_table(first, tmp_path / f"t{suffix}", name_of=_name_of)
    import_table(tmp_path / f"t{suffix}", tmp_path / "b.sqlite", name="note10", block_of=_block_of)
    second = LatencyTable.open(tmp_path / "b.sqlite")
    assert {row.block: row.evidence.result for row in second.block_rows()} == {
        row.block: row.evidence.result for row in first.block_rows()
    }


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no mapping of names"),
        ("- 1\n- 2\n", "no mapping of names"),
        ("8: {mean: 1.0}\n", "8 is no name"),
        ("conv-8: 1.0\n", "'conv-8' is 1.0"),
        ("conv-8: {std: 1.0}\n", "mean Field required"),
        ("conv-8: {mean: fast}\n", "'fast'}: mean .*valid number"),
        ("conv-8: {mean: .nan}\n", "mean .*finite number"),
        ("conv-8: {mean: -1}\n", "mean .*greater than 0"),
        ("conv-8: {mean: true}\n", "True}: mean .*valid number"),
        ("conv-8: {mean: 1, count: 2.5}\n", "count .*valid integer"),
        ("conv-8: {mean: 1\n", "flow mapping"),
        ("conv-8: {mean: 1}\nconv-08: {mean: 2}\n", "another name are one block"),
        ("dense-8: {mean: 1}\n", "none of its 1 names is a block"),
        ("conv-8: !!python/object/apply:os.system ['touch hacked']\n", "could not determine a constructor"),
    ],
)
def test_a_file_that_is_something_else_is_told_in_one_line(
    tmp_path: Path, text: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.yaml").write_text(text)
    with pytest.raises(TableError, match=told) as error:
        import_table(tmp_path / "t.yaml", tmp_path / "copy.sqlite", name="note10", block_of=_block_of)
    assert "\n" not in str(error.value)
    assert [file.name for file in tmp_path.iterdir()] == ["t.yaml"]


def test_their_names_need_someone_who_knows_them(table: LatencyTable, theirs: Path, tmp_path: Path) -> None:
    with pytest.raises(TableError, match="pass name_of="):
        export_table(table, tmp_path / "t.yml")
    with pytest.raises(TableError, match="pass name= and block_of="):
        import_table(theirs, tmp_path / "copy.sqlite", name="note10")
