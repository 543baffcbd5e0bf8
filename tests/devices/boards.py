"""Real trackers and boards on loopback for tests: processes of their own that are gone when the test is."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from hwnas.devices import Device
from hwnas.devices import board as board_file
from hwnas.devices.tracker import tracker_summary

HOST = "127.0.0.1"
_START_S = 120.0  # two seconds on a quiet machine


@dataclass
class Served:
    """A server in a process group of its own, at HOST:port."""

    process: subprocess.Popen[bytes]
    port: int

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def place(self) -> str:
        return f"{HOST}:{self.port}"

    def kill(self) -> None:
        """SIGKILL to all of it, as a power cut would."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(timeout=30)

    def stop(self) -> None:
        """Ask it to end; what does not is killed."""
        with suppress(ProcessLookupError):
            self.process.terminate()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@contextmanager
def serve(command: Sequence[str], *, log: Path | None = None) -> Iterator[Served]:
    """A program that prints a line which ends with its port when it is ready."""
    said = log.open("ab") if log else subprocess.DEVNULL
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=said,
        start_new_session=True,
        env=environment,
        # a test that is killed leaves nothing behind either
        preexec_fn=partial(board_file.die_with_parent, os.getpid()),  # noqa: PLW1509  # no test starts it from a thread
    )
    assert process.stdout is not None
    served = Served(process, 0)
    try:
        ready, _, _ = select.select([process.stdout], [], [], _START_S)
        line = process.stdout.readline().decode() if ready else ""
        if not line.strip():
            raise RuntimeError(f"{' '.join(command)} does not start")
        served.port = int(line.rpartition(":")[2])
        yield served
    finally:
        served.stop()
        served.kill()
        process.stdout.close()
        if log:
            said.close()  # type: ignore[union-attr]


@contextmanager
def tracker(port: int = 0) -> Iterator[Served]:
    command = [sys.executable, "-m", "hwnas.devices.tracker", "--host", HOST, "--port", str(port or free_port())]
    with serve(command) as served:
        yield served


@contextmanager
def board(
    tracker: Served | None, key: str = "key", *, python: Sequence[str] = (sys.executable,), log: Path | None = None
) -> Iterator[Served]:
    """hwnas's own server, known to its tracker; `python` may be an emulator's command line."""
    command = [*python, str(board_file.__file__), "--host", HOST, "--port", str(free_port()), "--key", key]
    if tracker is not None:
        command += ["--tracker", tracker.place]
    with serve(command, log=log) as served:
        if tracker is not None:
            until(lambda: served.place in _places(tracker, key))
        yield served


def _places(tracker: Served, key: str) -> tuple[str, ...]:
    boards = tracker_summary(HOST, tracker.port).get(key)
    return boards.places if boards and boards.free else ()


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for what happens in another process. Fails where it does not."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)


def free(tracker: Served, key: str = "key") -> int:
    """Boards under `key` that the tracker would lend at once."""
    boards = tracker_summary(HOST, tracker.port).get(key)
    return boards.free if boards else 0


def tracked(tracker: Served, key: str = "key", target: str = '{"kind": "llvm"}') -> Device:
    """The device that the tracker lends under `key`."""
    return Device("board", target, runner="rpc", address=f"tracker://{tracker.place}/{key}")


def direct(board: Served, key: str = "key", target: str = '{"kind": "llvm"}') -> Device:
    """The device that one board is."""
    return Device("board", target, runner="rpc", address=f"rpc://{board.place}/{key}")
