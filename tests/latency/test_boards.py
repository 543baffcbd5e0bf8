"""A table through real boards on loopback: a tracker, two servers, real compiled blocks."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from hwnas.devices import Device, Protocol, Runner
from hwnas.devices.compile import Artefact, CompileFailure, CompileJob, Compiler, host_target
from hwnas.devices.runners import board_count, open_runner
from hwnas.latency import Committed, LatencyTable, build
from hwnas.latency.builder import Event, JobCompiler
from tests.devices import artefacts
from tests.devices.boards import Served, board, tracked, tracker
from tests.latency.factories import conv_block

PROTOCOL = Protocol(rounds=4, repeats=5, burn_in=1, pinned=False, niceness=0, timeout_s=5.0)
BLOCKS = [conv_block(channels) for channels in range(1, 25)]
HANGS = conv_block(9)


@dataclass
class Planted:
    """A compiler, one of whose artefacts is exchanged for a library that never comes back."""

    compiler: Compiler
    hanging: Path

    def compile(self, jobs: Sequence[CompileJob]) -> Iterator[tuple[int, Artefact | CompileFailure]]:
        for index, result in self.compiler.compile(jobs):
            if isinstance(result, Artefact) and jobs[index].label == str(HANGS):
                yield index, Artefact(self.hanging, "0" * 32, 0.0, cached=False)
            else:
                yield index, result

    def library(self, key: str) -> Path | None:
        return self.compiler.library(key)


@pytest.fixture
def farm() -> Iterator[tuple[Device, list[Served]]]:
    with tracker() as lender, board(lender) as first, board(lender) as second:
        device = tracked(lender, target=host_target())
        deadline = time.monotonic() + 60
        while board_count(device) < 2 and time.monotonic() < deadline:
            time.sleep(0.2)
        yield device, [first, second]


def _open(device: Device, compiler: Compiler, count: int) -> list[Runner]:
    return [open_runner(device, compiler=compiler.versions()) for _ in range(count)]


def test_a_farm_loses_a_board_and_meets_a_kernel_that_hangs_and_the_table_is_whole(
    farm: tuple[Device, list[Served]], tmp_path: Path
) -> None:
    device, boards = farm
    assert board_count(device) == 2
    done: list[int] = []

    def kill_at_a_third(event: Event) -> None:
        if isinstance(event, Committed):
            if event.done >= len(BLOCKS) // 3 and not done:
                boards[0].kill()
            done.append(event.done)

    with Compiler(device.target, cache=tmp_path / "cache", workers=2) as compiler:
        planted: JobCompiler = Planted(compiler, artefacts.hanging(tmp_path / "hanging.so"))
        runners = _open(device, compiler, 2)
        places = {runner.fingerprint().board for runner in runners}
        assert places == {each.place for each in boards}
        fingerprint = runners[0].fingerprint()
        table = LatencyTable.open_for(tmp_path / "t.sqlite", device, fingerprint=fingerprint, protocol=PROTOCOL)
        report = build(
            table, BLOCKS, compiler=planted, runner=runners, protocol=PROTOCOL, chunk=4, on_event=kill_at_a_third
        )
    assert Counter(row.block for row in table.block_rows()) == Counter(BLOCKS)  # none lost, none twice
    assert list(table.failures()) == [HANGS]
    # the other board's client may be the first to take this one when the hung kernel has freed it
    assert "no answer within 5 s" in table.failures()[HANGS] or "did not answer in time" in table.failures()[HANGS]
    assert report.added == len(BLOCKS)
    assert all(visit.fingerprint.board in places for visit in table.visits())
    table.close()


def test_a_board_is_free_again_after_a_build(farm: tuple[Device, list[Served]], tmp_path: Path) -> None:
    device, _ = farm
    for part in (BLOCKS[:3], BLOCKS[3:6]):
        with Compiler(device.target, cache=tmp_path / "cache", workers=2) as compiler:
            runners = _open(device, compiler, 2)
            fingerprint = runners[0].fingerprint()
            table = LatencyTable.open_for(tmp_path / "t.sqlite", device, fingerprint=fingerprint, protocol=PROTOCOL)
            build(table, part, compiler=compiler, runner=runners, protocol=PROTOCOL)
            table.close()
    table = LatencyTable.open(tmp_path / "t.sqlite")
    assert len(table.latencies_ms()) == 6
    assert table.visits()[-1].speed is not None
