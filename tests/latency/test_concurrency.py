"""Four processes that fill one table at once, one of them killed in the middle of a transaction."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing import Pipe, get_context
from multiprocessing.connection import Connection as Wire
from multiprocessing.process import BaseProcess
from threading import Barrier, BrokenBarrierError
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Connection, Table, func, select

from hwnas.devices import Measurement
from hwnas.latency import BlockRow, Evidence, LatencyTable, schema
from hwnas.latency.database import Database
from tests.latency.factories import conv_block
from tests.latency.toys import DEVICE, FINGERPRINT, MEASURED_AT, PROTOCOL

CHANNELS = range(1, 61)
BATCH = 3
VICTIM = 0
BEFORE_THE_KILL = 5  # batches that the victim commits


def _open(location: str) -> LatencyTable:
    return LatencyTable.open_for(location, DEVICE, fingerprint=FINGERPRINT, protocol=PROTOCOL)


def _row(channels: int, builder: int) -> BlockRow:
    """What a builder measured: its latency says whose row it is."""
    return BlockRow(conv_block(channels), Evidence(Measurement((builder + 1.0,), PROTOCOL, MEASURED_AT)))


def _builder(location: str, builder: int, parent: Wire) -> None:
    """Add every block in an order of its own, a few at a time, and tell the parent what each `add` returned."""
    parent.send("ready")
    parent.recv()
    table = _open(location)  # all four create the tables at once
    order = np.random.default_rng(builder).permutation(list(CHANNELS)).tolist()
    for start in range(0, len(order), BATCH):
        if builder == VICTIM and start == BEFORE_THE_KILL * BATCH:
            _stop_inside(parent)
        batch = order[start : start + BATCH]
        added = table.add([_row(c, builder) for c in batch], fingerprint=FINGERPRINT, protocol=PROTOCOL)
        parent.send((batch, added))
    table.close()


def _stop_inside(parent: Wire) -> None:
    """From now on, rows are inserted and then nothing more happens."""
    insert_new = Database.insert_new

    def insert(self: Database, *arguments: Any) -> int:
        assert insert_new(self, *arguments) >= 0
        parent.send("inside")
        parent.recv()
        raise AssertionError("the parent kills this process instead of answering")

    Database.insert_new = insert  # type: ignore[method-assign]


def _start(location: str) -> list[tuple[BaseProcess, Wire]]:
    builders = []
    for builder in range(4):
        ours, theirs = Pipe()
        # forked, because importing torch anew takes seconds
        process = get_context("fork").Process(target=_builder, args=(location, builder, theirs))
        process.start()
        theirs.close()
        builders.append((process, ours))
    for _, events in builders:
        assert events.recv() == "ready"
    for _, events in builders:
        events.send("go")
    return builders


def _told(events: Wire) -> list[tuple[list[int], int]]:
    """What a builder said until it ended."""
    told = []
    while True:
        try:
            told.append(events.recv())
        except (EOFError, ConnectionResetError):
            return told


@pytest.fixture
def reports(location: str) -> list[list[tuple[list[int], int]]]:
    """(batch, how many were new) of every `add` that returned, builder by builder; the victim's half add is not in."""
    builders = _start(location)
    victim, events = builders[VICTIM]
    first = [events.recv() for _ in range(BEFORE_THE_KILL)]
    assert events.recv() == "inside"
    victim.kill()
    victim.join()
    assert victim.exitcode == -signal.SIGKILL
    reports = [first if builder == VICTIM else _told(events) for builder, (_, events) in enumerate(builders)]
    for process, _ in builders[1:]:
        process.join()
        assert process.exitcode == 0
    return reports


def _owners(table: LatencyTable) -> Counter[int]:
    return Counter(int(latency_ms) - 1 for latency_ms in table.latencies_ms().values())


def _count(table: LatencyTable, column: Any) -> int:
    with table.database.reading() as connection:
        return int(connection.execute(select(func.count(column))).scalar_one())


def test_no_row_is_lost_doubled_or_half_written(location: str, reports: Sequence[list[tuple[list[int], int]]]) -> None:
    table = _open(location)
    blocks = [row.block for row in table.block_rows()]
    assert sorted(block.key for block in blocks) == sorted(conv_block(channels).key for channels in CHANNELS)
    assert _count(table, schema.blocks.c.id) == _count(table, schema.blocks.c.key.distinct()) == len(CHANNELS)
    # each row belongs to the builder whose `add` said that it was new, and to nobody else
    assert _owners(table) == Counter({i: sum(added for _, added in told) for i, told in enumerate(reports)})
    assert len(table.visits()) == sum(len(told) for told in reports)
    assert [len(told) for told in reports] == [BEFORE_THE_KILL, 20, 20, 20]


def test_the_same_rows_in_another_order_are_no_deadlock(location: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = [_open(location), _open(location)]
    insert_new, both_inside = Database.insert_new, Barrier(2, timeout=0.5)

    def insert(self: Database, connection: Connection, table: Table, rows: list[dict[str, Any]]) -> int:
        """One row at a time, with a rest in between."""
        inserted = 0
        for row in rows:
            inserted += insert_new(self, connection, table, [row])
            with suppress(BrokenBarrierError):  # the second builder waits for the first, which waits here in vain
                both_inside.wait()
        return inserted

    monkeypatch.setattr(Database, "insert_new", insert)
    with ThreadPoolExecutor(2) as builders:
        rows = [_row(1, 0), _row(2, 0)]
        asked = [
            builders.submit(table.add, order, fingerprint=FINGERPRINT, protocol=PROTOCOL)
            for table, order in zip(tables, (rows, rows[::-1]), strict=True)
        ]
        assert sorted(added.result() for added in asked) == [0, 2]
