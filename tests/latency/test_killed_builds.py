"""Builds in processes of their own, killed and run side by side."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from multiprocessing import Pipe, get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from hwnas.devices import Protocol, open_runner, probe_host
from hwnas.devices.compile import Compiler
from hwnas.latency import Block, BuildReport, Committed, LatencyTable, Network, build
from hwnas.latency.builder import Event
from tests.latency.factories import conv_block, two_convs
from tests.latency.toys import DEVICE, FINGERPRINT, PROTOCOL, ToyCompiler, ToyRunner

ROOT = Path(__file__).parents[2]
ASKED = [conv_block(channels) for channels in range(1, 101)]
SHORT = Protocol(rounds=2, repeats=3, warmup=1, niceness=0)

REAL_BUILD = """
import sys
from pathlib import Path
from tests.latency.test_killed_builds import build_for_real
print("open", flush=True)
build_for_real(Path(sys.argv[1]), on_event=lambda event: print(event, flush=True))
"""

REAL_BLOCKS = [
    conv_block(2),
    Block.of("test.raises", (1, 2, 4, 4), channels=2),
    conv_block(3),
    Block.of("test.crashes", (1, 2, 4, 4), channels=2),
    conv_block(4),
]


def build_for_real(folder: Path, *, on_event: Callable[[Event], None] = lambda _: None) -> BuildReport:
    """Build the table of `REAL_BLOCKS` under `folder` with TVM on this machine, a block a chunk."""
    host = probe_host()
    with Compiler(host.target, cache=folder / "cache", workers=1, timeout_s=120) as compiler:
        runner = open_runner(host, compiler=compiler.versions())
        table = LatencyTable.open_for(folder / "t.sqlite", host, fingerprint=runner.fingerprint(), protocol=SHORT)
        report = build(table, REAL_BLOCKS, compiler=compiler, runner=runner, protocol=SHORT, chunk=1, on_event=on_event)
        runner.close()
    table.close()
    return report


def _start(code: str, *arguments: object) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    return process


def _toy_table(location: str) -> LatencyTable:
    return LatencyTable.open_for(location, DEVICE, fingerprint=FINGERPRINT, protocol=PROTOCOL)


def _toy_build(location: str, events: Connection, step: bool) -> None:
    events.send("ready")
    events.recv()

    def tell(event: Event) -> None:
        if step and isinstance(event, Committed):
            events.send(event.done)
            events.recv()  # the next chunk waits for a word, so that a kill finds work to interrupt

    build(
        _toy_table(location),
        ASKED,
        compiler=ToyCompiler(),
        runner=ToyRunner(),
        protocol=PROTOCOL,
        chunk=2,
        on_event=tell,
    )


def _toy_builder(location: str, *, step: bool) -> tuple[BaseProcess, Connection]:
    """A process that waits for a word and then builds; forked, because importing torch anew takes seconds."""
    ours, theirs = Pipe()
    process = get_context("fork").Process(target=_toy_build, args=(location, theirs, step))
    process.start()
    theirs.close()
    ours.recv()
    return process, ours


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, set[Block], BuildReport]]:
    """A real build killed after its second chunk and built to the end: folder, rows at the kill, report of the rest."""
    folder = tmp_path_factory.mktemp("killed")
    process = _start(REAL_BUILD, folder)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("Committed(done=2"):
            break
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    table = LatencyTable.open(folder / "t.sqlite")
    committed = {row.block for row in table.block_rows()}
    table.close()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT)  # compiling processes look for the factories there
        yield folder, committed, build_for_real(folder)


def test_a_killed_build_keeps_what_it_committed(killed: tuple[Path, set[Block], BuildReport]) -> None:
    _, committed, _ = killed
    assert set(REAL_BLOCKS[:2]) <= committed


def test_a_killed_build_continues_where_it_stopped(killed: tuple[Path, set[Block], BuildReport]) -> None:
    folder, committed, report = killed
    assert (report.present, report.tried, report.added) == (len(committed), 5 - len(committed), 5 - len(committed))
    rows = LatencyTable.open(folder / "t.sqlite").block_rows()
    assert [row.block for row in rows] == REAL_BLOCKS


def test_blocks_that_raise_or_crash_are_rows_and_the_rest_is_measured(
    killed: tuple[Path, set[Block], BuildReport],
) -> None:
    table = LatencyTable.open(killed[0] / "t.sqlite")
    assert set(table.latencies_ms()) == {conv_block(c) for c in (2, 3, 4)}
    assert all(latency_ms > 0 for latency_ms in table.latencies_ms().values())
    assert "no convolution has 2 channels" in table.failures()[REAL_BLOCKS[1]]
    assert table.failures()[REAL_BLOCKS[3]].startswith("did not compile")


def test_a_whole_network_is_compiled_and_measured(killed: tuple[Path, set[Block], BuildReport]) -> None:
    folder, _, _ = killed
    host = probe_host()
    network = Network("two convs", two_convs, ((1, 2, 4, 4),), (conv_block(2), conv_block(3)))
    with Compiler(host.target, cache=folder / "cache", workers=1, timeout_s=120) as compiler:
        runner = open_runner(host, compiler=compiler.versions())
        table = LatencyTable.open_for(folder / "t.sqlite", host, fingerprint=runner.fingerprint(), protocol=SHORT)
        build(table, [], check=[network], compiler=compiler, runner=runner, protocol=SHORT)
        runner.close()
    (row,) = table.networks("check")
    assert not isinstance(row.evidence.result, str)
    assert row.evidence.result.latency_ms > 0


@pytest.mark.parametrize("commits", [1, 2, 7, 30])
def test_a_kill_in_any_chunk_loses_and_doubles_nothing(location: str, commits: int) -> None:
    process, events = _toy_builder(location, step=True)
    for done in range(commits):
        events.send("go on")
        assert events.recv() == 2 * done + 2
    events.send("go on")
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    table = _toy_table(location)
    kept = len(table.block_rows())
    assert kept in (2 * commits, 2 * commits + 2)
    assert table.missing(ASKED) == ASKED[kept:]
    build(table, ASKED, compiler=ToyCompiler(), runner=ToyRunner(), protocol=PROTOCOL)
    assert [row.block for row in table.block_rows()] == ASKED


def test_of_four_builders_one_killed_nothing_is_lost_and_nothing_doubled(location: str) -> None:
    (victim, events), *others = [_toy_builder(location, step=builder == 0) for builder in range(4)]
    events.send("go")
    assert events.recv() == 2
    for _, other in others:
        other.send("go")
    events.send("go on")
    victim.kill()
    victim.join()
    assert victim.exitcode == -signal.SIGKILL
    for process, _ in others:
        process.join()
        assert process.exitcode == 0
    rows = _toy_table(location).block_rows()
    assert sorted(row.block.key for row in rows) == sorted(block.key for block in ASKED)
