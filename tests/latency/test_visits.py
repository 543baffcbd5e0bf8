"""Visits, their anchors and speeds, and drift checks, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from hwnas.devices import DeviceError, Measurement
from hwnas.latency import BlockRow, DriftCheck, Evidence, LatencyTable, NetworkRow
from tests.latency.factories import conv_block
from tests.latency.toys import DEVICE, FINGERPRINT, MEASURED_AT, PROTOCOL


@pytest.fixture
def table(location: str) -> Iterator[LatencyTable]:
    table = LatencyTable.open_for(location, DEVICE, fingerprint=FINGERPRINT, protocol=PROTOCOL)
    yield table
    table.close()


def _timed(*runs_ms: float, drift: tuple[float, ...] = ()) -> Measurement:
    return Measurement(runs_ms, PROTOCOL, MEASURED_AT, drift)


def _row(channels: int, *runs_ms: float, drift: tuple[float, ...] = (), artefact: str | None = "key") -> BlockRow:
    return BlockRow(conv_block(channels), Evidence(_timed(*runs_ms, drift=drift), artefact))


def _add(table: LatencyTable, *rows: BlockRow | NetworkRow, **visit: object) -> int:
    return table.add(rows, fingerprint=FINGERPRINT, protocol=PROTOCOL, **visit)  # type: ignore[arg-type]


def _check(speed: float, *, accepted: bool) -> DriftCheck:
    return DriftCheck(FINGERPRINT, speed, speed - 0.01, speed + 0.01, 12, "moved", accepted, MEASURED_AT)


def test_a_block_of_a_slow_visit_takes_what_it_would_have_taken_in_the_first(table: LatencyTable) -> None:
    _add(table, _row(8, 1.0, 1.0, 1.0, 1.0))
    _add(table, _row(16, 4.0, 4.0, 6.0, 6.0, drift=(0.8, 1.2)), _row(32, 3.0), speed=2.0)
    assert table.latencies_ms() == {conv_block(8): 1.0, conv_block(16): 2.5, conv_block(32): 1.5}
    measured = table.measurement(conv_block(16))
    assert measured.runs_ms == (4.0, 4.0, 6.0, 6.0)
    assert measured.drift == (1.6, 2.4)
    assert table.measurement(conv_block(32)).drift == (2.0,)


def test_a_visit_of_unknown_speed_is_taken_as_it_is(table: LatencyTable) -> None:
    _add(table, _row(8, 3.0), speed=None)
    assert table.measurement(conv_block(8)).drift == ()
    assert table.visits()[0].speed is None


def test_a_visit_tells_the_states_before_and_after_and_its_anchors(table: LatencyTable) -> None:
    hot = replace(FINGERPRINT, clock_mhz=600.0, governor="powersave")
    anchors = [("a" * 16, _timed(1.0, 2.0, drift=(0.5,))), ("b" * 16, _timed(3.0))]
    _add(table, _row(8, 1.0))
    _add(table, _row(16, 1.0), after=hot, speed=1.5, anchors=anchors)
    first, second = table.visits()
    assert (first.fingerprint, first.after, first.speed, first.anchors) == (FINGERPRINT, None, None, ())
    assert (second.after, second.speed, second.anchors) == (hot, 1.5, tuple(anchors))
    assert second.protocol == PROTOCOL
    assert first.uid != second.uid


def test_anchors_are_kept_each_time_they_are_measured(table: LatencyTable) -> None:
    _add(table, anchors=[("a", _timed(1.0)), ("a", _timed(2.0))])
    _add(table, anchors=[("a", _timed(3.0))])
    assert [[m.runs_ms for _, m in visit.anchors] for visit in table.visits()] == [[(1.0,), (2.0,)], [(3.0,)]]


def test_a_visit_without_anything_is_none(table: LatencyTable) -> None:
    assert _add(table) == 0
    assert table.visits() == []


def test_a_device_that_became_another_during_the_visit_is_refused(table: LatencyTable) -> None:
    with pytest.raises(DeviceError, match="soc 'toy' there, 'swapped' here"):
        _add(table, _row(8, 1.0), after=replace(FINGERPRINT, soc="swapped"))
    assert table.block_rows() == []


@pytest.mark.parametrize("speed", [0.0, -1.0, float("nan"), float("inf")])
def test_a_speed_that_is_no_ratio_of_times_is_refused(table: LatencyTable, speed: float) -> None:
    with pytest.raises(ValueError, match="ratio of times"):
        _add(table, _row(8, 1.0), speed=speed)


def test_anchors_come_from_what_ran_in_the_first_visit_in_which_something_did(table: LatencyTable) -> None:
    failed = BlockRow(conv_block(1), Evidence("did not run", "key"))
    network = NetworkRow("a", "fit", (conv_block(2), conv_block(4)), Evidence(_timed(3.0), "network"))
    assert table.first_visit_rows() == []
    _add(table, failed)
    _add(table, _row(2, 1.0), network, _row(4, 2.0, artefact=None))
    _add(table, _row(8, 1.0), speed=1.1)
    assert table.first_visit_rows() == [_row(2, 1.0), network]


def test_an_accepted_check_rescales_the_table_until_the_next(table: LatencyTable) -> None:
    network = NetworkRow("a", "fit", (conv_block(8),), Evidence(_timed(3.0)))
    _add(table, _row(8, 2.0), network)
    assert table.scale == 1.0
    table.note_check(_check(1.5, accepted=True))
    table.note_check(_check(9.0, accepted=False))
    assert table.scale == 1.5
    assert table.latencies_ms() == {conv_block(8): 3.0}
    assert table.measured() == [((conv_block(8),), 4.5)]
    table.note_check(_check(0.5, accepted=True))
    assert table.scale == 0.5
    assert table.measurement(conv_block(8)).latency_ms == 2.0
    assert table.checks() == [_check(1.5, accepted=True), _check(9.0, accepted=False), _check(0.5, accepted=True)]


def test_one_devices_visits_and_checks_are_not_anothers(location: str, table: LatencyTable) -> None:
    device = replace(DEVICE, name="other")
    other = LatencyTable.open_for(location, device, fingerprint=FINGERPRINT, protocol=PROTOCOL)
    _add(other, _row(8, 2.0), anchors=[("a", _timed(1.0))])
    other.note_check(_check(1.5, accepted=True))
    assert (table.visits(), table.checks(), table.scale, table.first_visit_rows()) == ([], [], 1.0, [])


def test_a_table_of_a_model_says_so(location: str) -> None:
    modelled = replace(FINGERPRINT, modelled=True)
    table = LatencyTable.open_for(location, DEVICE, fingerprint=modelled, protocol=PROTOCOL)
    assert table.modelled
    assert LatencyTable.open(location).modelled
