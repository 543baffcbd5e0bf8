"""Processes that share the evaluations of one search: each claims rows, and those of a dead one come back.

No clock is compared with another. A worker raises a counter in the database while it lives; who waits for it watches
that counter by its own monotonic clock. On the same machine the process number says at once that it is gone.
"""

from __future__ import annotations

import os
import platform
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
from sqlalchemy import Connection, insert, select, update

from hwnas.engine.journal import CLAIMS, OUTCOMES, SEARCHES, WORKERS, Journal, JournalError, now

LEASE_S = 120.0
BEATS_A_LEASE = 8  # so that a machine which is busy for minutes misses some of them, not all


class Worker:
    """This process at work on a search, from `with` to its end.

    `lease_s` is how long others bear its silence; `clock` measures theirs.
    """

    def __init__(
        self, journal: Journal, search: int, *, lease_s: float = LEASE_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.id = uuid.uuid4().hex
        self._database, self._search, self._lease_s, self._clock = journal.database, search, lease_s, clock
        self._machine = machine()
        self._watched: dict[str, tuple[int, float]] = {}  # worker -> its counter, and since when that is all it said
        self._done = 0, 0  # of this round, every row before this one has an outcome
        self._leaving = threading.Event()
        self._heart = threading.Thread(target=self._beat, name=self.id, daemon=True)

    def __enter__(self) -> Self:
        row = {
            "id": self.id,
            "search": self._search,
            "machine": self._machine,
            "process": os.getpid(),
            "started": birth(os.getpid()),
            "host": platform.node(),
            "lease_s": self._lease_s,
            "beats": 0,
            "has_left": False,
            "joined_at": now(),
        }
        with self._database.writing() as connection:
            connection.execute(insert(WORKERS), row)
        self._heart.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leaving.set()
        self._heart.join()
        # where the database is what failed, the lease says the same a little later
        with suppress(JournalError), self._database.writing() as connection:
            connection.execute(update(WORKERS).where(WORKERS.c.id == self.id).values(has_left=True))

    def claim(self, number: int, rows: int, *, at_most: int) -> tuple[list[int], int]:
        """Some of round `number`'s first `rows` rows to evaluate, and how many have no outcome yet.

        A fair share of what is free, so that whoever joins finds something to do, and no more than `at_most`. None
        are free while others evaluate them.
        """
        first = self._done[1] if self._done[0] == number else 0
        with self._database.writing() as connection:
            lock(connection, self._search)
            outcomes, claims = (
                (table.c.search == self._search) & (table.c.round == number) & table.c.row.between(first, rows - 1)
                for table in (OUTCOMES, CLAIMS)
            )
            kept = set(connection.scalars(select(OUTCOMES.c.row).where(outcomes)))
            columns = CLAIMS.c.row, CLAIMS.c.attempt, CLAIMS.c.worker
            ordered = select(*columns).where(claims).order_by(CLAIMS.c.row, CLAIMS.c.attempt)
            latest = {row: (attempt, worker) for row, attempt, worker in connection.execute(ordered)}
            living = self._living(connection)
            left = [row for row in range(first, rows) if row not in kept]
            self._done = number, left[0] if left else rows
            free = [row for row in left if row not in latest or latest[row][1] not in living]
            share = free[: min(at_most, -(-len(free) // len(living)))]
            made = [
                {
                    "search": self._search,
                    "round": number,
                    "row": row,
                    "attempt": 1 + latest.get(row, (0, ""))[0],
                    "worker": self.id,
                    "claimed_at": now(),
                }
                for row in share
            ]
            if made:
                connection.execute(insert(CLAIMS), made)
        return share, len(left)

    def _living(self, connection: Connection) -> set[str]:
        """Workers of this search that may still answer, this one among them."""
        here = (WORKERS.c.search == self._search) & ~WORKERS.c.has_left & (WORKERS.c.id != self.id)
        return {self.id} | {
            row["id"] for row in connection.execute(select(WORKERS).where(here)).mappings() if self._lives(row)
        }

    def _lives(self, other: Any) -> bool:  # a row of WORKERS
        if other["machine"] == self._machine:
            if birth(other["process"]) != other["started"]:
                return False
            if other["process"] == os.getpid():  # one that could not say that it left
                return any(thread.name == other["id"] for thread in threading.enumerate())
        beats, since = self._watched.get(other["id"], (None, 0.0))
        if beats != other["beats"]:
            self._watched[other["id"]] = other["beats"], self._clock()
            return True
        return bool(self._clock() - since < other["lease_s"])

    def _beat(self) -> None:
        beat = update(WORKERS).where(WORKERS.c.id == self.id).values(beats=WORKERS.c.beats + 1)
        while not self._leaving.wait(self._lease_s / BEATS_A_LEASE):
            # a database that is away for a moment is no reason to fall silent for good
            with suppress(JournalError), self._database.writing() as connection:
                connection.execute(beat)


def lock(connection: Connection, search: int) -> None:
    """One writer of a search at a time, to the end of the transaction; SQLite has but one anyway."""
    if connection.dialect.name != "sqlite":
        connection.execute(select(SEARCHES.c.id).where(SEARCHES.c.id == search).with_for_update())


def machine() -> str:
    """Within what a process number means one process: this boot of this kernel, as seen from this container."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux, or not all of it
        return f"{platform.node()}/{uuid.getnode():x}"


def birth(process: int) -> str:
    """When a process of this machine began; empty where it is gone, also if nobody has asked for its exit code."""
    if Path("/proc/self/stat").exists():
        try:
            # the name, in brackets, may hold spaces and brackets
            state, *fields = (
                Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            )
        except OSError:
            return ""
        # in ticks since the boot: no step of the clock changes it
        return "" if state in ("Z", "X") else fields[18]
    try:
        found = psutil.Process(process)
        return "" if found.status() == psutil.STATUS_ZOMBIE else str(found.create_time())
    except psutil.NoSuchProcess:
        return ""
