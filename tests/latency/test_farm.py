"""Boards that die, hang and come back: nothing is lost and nothing is measured twice."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from hwnas.devices import BoardLostError, DeviceError, Fingerprint, Measurement, Protocol, RunFailure
from hwnas.latency import BuildReport, LatencyTable, build
from hwnas.latency.farm import Farm
from tests.latency.factories import conv_block
from tests.latency.toys import DEVICE, FINGERPRINT, PROTOCOL, ToyCompiler, ToyRunner

BLOCKS = [conv_block(channels) for channels in range(1, 41)]


@dataclass
class Board(ToyRunner):
    """A board that shares nothing with this machine, dies of what `fate` says of a batch, and may come back."""

    shares_host: bool = False
    fate: Callable[[Sequence[Path]], bool] = lambda _: False
    comes_back: bool = True
    dead: bool = False
    timed: Counter[str] = field(default_factory=Counter)
    closed: threading.Event = field(default_factory=threading.Event)
    takes_s: float = 0.0

    def time(self, artefacts: Sequence[Path], protocol: Protocol) -> list[Measurement | RunFailure]:
        time.sleep(self.takes_s)
        if self.dead or self.fate(artefacts):
            self.dead = not self.comes_back
            raise BoardLostError("the board is gone: switch it on")
        self.timed.update(path.stem for path in artefacts)
        return super().time(artefacts, protocol)

    def fingerprint(self) -> Fingerprint:
        if self.dead:
            raise BoardLostError("the board is gone: switch it on")
        return super().fingerprint()

    def close(self) -> None:
        self.closed.set()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    wait = Farm._wait
    monkeypatch.setattr(Farm, "_wait", lambda farm, seconds: wait(farm, seconds / 1000))


@pytest.fixture
def table(tmp_path: Path) -> LatencyTable:
    return LatencyTable.open_for(tmp_path / "t.sqlite", DEVICE, fingerprint=FINGERPRINT, protocol=PROTOCOL)


def _build(table: LatencyTable, boards: list[Board], **changes: object) -> BuildReport:
    tools = {"compiler": ToyCompiler(), "protocol": PROTOCOL, "chunk": 4, **changes}
    return build(table, BLOCKS, runner=boards, **tools)  # type: ignore[arg-type]


def _complete(table: LatencyTable) -> bool:
    return table.latencies_ms() == {block: pytest.approx(c) for c, block in enumerate(BLOCKS, 1)}


def test_boards_share_the_work_and_every_block_is_measured_once(table: LatencyTable) -> None:
    boards = [Board(takes_s=0.01), Board(takes_s=0.01)]
    report = _build(table, boards)
    assert _complete(table)
    assert (report.tried, report.added, report.left) == (40, 40, 0)
    rows = [row.block for row in table.block_rows()]
    assert sorted(map(str, rows)) == sorted(map(str, BLOCKS))
    assert all(board.timed for board in boards)
    assert all(board.closed.is_set() for board in boards)


def test_boards_of_different_speed_fill_one_table(table: LatencyTable) -> None:
    _build(table, [Board(takes_s=0.01), Board(takes_s=0.01, speed=1.5)])
    # whichever was first set the pace, the other was brought to it
    latencies = [table.latencies_ms()[block] / c for c, block in enumerate(BLOCKS, 1)]
    assert latencies == pytest.approx([latencies[0]] * 40)
    assert latencies[0] in (1.0, 1.5)


def test_a_board_that_dies_for_good_leaves_its_work_to_the_others(table: LatencyTable) -> None:
    calls: list[int] = []

    def third(_: Sequence[Path]) -> bool:
        calls.append(1)
        return len(calls) == 3

    mortal = Board(takes_s=0.01, fate=third, comes_back=False)
    report = _build(table, [mortal, Board(takes_s=0.02)])
    assert mortal.dead
    assert _complete(table)
    assert report.added == 40


def test_a_board_that_is_exchanged_for_another_kind_is_left_out(table: LatencyTable) -> None:
    @dataclass
    class Exchanged(Board):
        def time(self, artefacts: Sequence[Path], protocol: Protocol) -> list[Measurement | RunFailure]:
            self.state = replace(FINGERPRINT, soc="another")
            raise BoardLostError("unplugged")

    report = _build(table, [Exchanged(), Board(takes_s=0.03)])
    assert _complete(table)
    assert len(report.gone) == 1
    assert "soc 'toy' there, 'another' here" in report.gone[0]


def test_a_board_that_was_never_there_is_named(table: LatencyTable) -> None:
    absent = Board(comes_back=False, dead=True)
    report = _build(table, [absent, Board(takes_s=0.05)])
    assert _complete(table)
    assert report.gone == ("the board is gone: switch it on",)


def test_a_board_that_comes_back_goes_on(table: LatencyTable) -> None:
    calls: list[int] = []

    def third(_: Sequence[Path]) -> bool:
        calls.append(1)
        return len(calls) in (3, 4)

    report = _build(table, [Board(fate=third)])
    assert _complete(table)
    assert report.failed == 0


def test_a_block_that_takes_every_board_down_fails_alone(table: LatencyTable) -> None:
    def deadly(paths: Sequence[Path]) -> bool:
        return any(path.stem == "1-7-4-4" for path in paths)

    report = _build(table, [Board(fate=deadly), Board(fate=deadly)])
    assert list(table.failures()) == [conv_block(7)]
    assert "the board is gone" in table.failures()[conv_block(7)]
    assert len(table.latencies_ms()) == 39
    assert report.failed == 1


def test_what_did_not_answer_before_a_board_was_lost_is_the_first_to_be_suspected(table: LatencyTable) -> None:
    def hangs(paths: Sequence[Path]) -> bool:
        if any(path.stem == "1-7-4-4" for path in paths):
            lost = BoardLostError("the board does not come back")
            lost.suspects = ("1-7-4-4.so",)
            raise lost
        return False

    board = Board(fate=hangs)
    _build(table, [board])
    assert list(table.failures()) == [conv_block(7)]
    assert "it did not answer in time" in table.failures()[conv_block(7)]
    assert len(table.latencies_ms()) == 39


def test_when_the_last_board_is_gone_the_build_says_so_and_keeps_what_it_has(table: LatencyTable) -> None:
    calls: list[int] = []

    def fourth(_: Sequence[Path]) -> bool:
        calls.append(1)
        return len(calls) == 4

    with pytest.raises(BoardLostError, match="switch it on"):
        _build(table, [Board(fate=fourth, comes_back=False)])
    assert len(table.latencies_ms()) == 12
    assert _build(table, [Board()]).present == 12
    assert _complete(table)


def test_a_defect_in_one_thread_is_everybodys(table: LatencyTable) -> None:
    def defect(_: Sequence[Path]) -> bool:
        raise ZeroDivisionError("a defect")

    with pytest.raises(ZeroDivisionError):
        _build(table, [Board(fate=defect), Board(takes_s=0.01)])


def test_the_time_is_up_for_boards_too(table: LatencyTable) -> None:
    board = Board()
    report = _build(table, [board], budget_minutes=2.5, clock=lambda: 60.0 * len(board.batches))
    assert (report.tried, report.left) == (12, 28)


def test_this_machine_and_a_board_do_not_mix(table: LatencyTable) -> None:
    with pytest.raises(ValueError, match="would disturb each other"):
        _build(table, [Board(), Board(shares_host=True)])


def test_a_stranger_among_the_boards_is_refused_before_anything_is_compiled(table: LatencyTable) -> None:
    compiler = ToyCompiler()
    with pytest.raises(DeviceError):
        _build(table, [Board(), Board(state=replace(FINGERPRINT, soc="another"))], compiler=compiler)
    assert compiler.asked == []
