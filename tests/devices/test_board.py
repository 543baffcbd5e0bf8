"""The server of a board, spoken to as any client of TVM's would."""

from __future__ import annotations

import gc
import os
import signal
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from hwnas.devices.board import REQUEST, Tracker
from hwnas.devices.tracker import tracker_summary
from tests.devices import artefacts, boards

MAGIC, MISMATCH = 0xFF271, 0xFF273


@pytest.fixture(scope="module")
def tracker() -> Iterator[boards.Served]:
    with boards.tracker() as tracker:
        yield tracker


@pytest.fixture(scope="module")
def alone() -> Iterator[boards.Served]:
    """A board that no tracker knows."""
    with boards.board(None) as board:
        yield board


@pytest.fixture(scope="module")
def lent(tracker: boards.Served) -> Iterator[boards.Served]:
    """The only board under "lent"."""
    with boards.board(tracker, "lent") as board:
        yield board


def greet(place: tuple[str, int], key: str) -> socket.socket:
    peer = socket.create_connection(place, timeout=30)
    words = f"client:{key}".encode()
    peer.sendall(struct.pack("<ii", MAGIC, len(words)) + words)
    return peer


def test_a_client_of_tvm_runs_a_network(alone: boards.Served, tmp_path: Path) -> None:
    import numpy as np
    import tvm
    from tvm import relax, rpc

    path = artefacts.add_one(tmp_path / "add_one.so")
    session = rpc.connect(boards.HOST, alone.port, "key")
    session.upload(str(path))
    machine = relax.VirtualMachine(session.load_module(path.name), session.cpu(0))
    machine.set_input("main", tvm.runtime.tensor(np.zeros((2, 3), np.float32), session.cpu(0)))
    machine.invoke_stateful("main")
    assert machine.get_outputs("main")[0].numpy().sum() == 6
    del machine, session
    gc.collect()  # a machine refers to itself, and the session ends with the last that refers to it


def test_who_has_not_the_key_is_sent_away(alone: boards.Served) -> None:
    with greet((boards.HOST, alone.port), "another") as peer:
        assert peer.recv(4) == struct.pack("<i", MISMATCH)


def test_a_board_that_a_tracker_lends_is_not_to_be_had_past_it(lent: boards.Served) -> None:
    for key in ("lent", ""):
        with greet((boards.HOST, lent.port), key) as peer:
            assert peer.recv(4) == struct.pack("<i", MISMATCH)


@pytest.mark.parametrize(
    "garbage",
    [b"", b"GET / HTTP/1.1\r\n\r\n", struct.pack("<ii", MAGIC, -1), struct.pack("<ii", MAGIC, 2) + b"\xff\xff"],
)
def test_garbage_does_not_harm_a_board(tracker: boards.Served, lent: boards.Served, garbage: bytes) -> None:
    with socket.create_connection((boards.HOST, lent.port)) as peer:
        peer.sendall(garbage)
    with greet((boards.HOST, lent.port), "another") as peer:
        assert peer.recv(4) == struct.pack("<i", MISMATCH)
    assert boards.free(tracker, "lent") == 1


def test_a_client_that_did_not_wait_for_its_turn_costs_the_board_nothing(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with boards.board(None, log=log) as board:
        with greet((boards.HOST, board.port), "key"):
            boards.until(lambda: log.read_text().count("session of") == 1)
            greet((boards.HOST, board.port), "key").close()
        with greet((boards.HOST, board.port), "key"):
            boards.until(lambda: log.read_text().count("session of") == 2)
        assert log.read_text().count("it did not wait") == 1


def test_an_offer_that_was_taken_and_not_used_is_made_again(tracker: boards.Served, lent: boards.Served) -> None:
    asking = Tracker((boards.HOST, tracker.port))
    asking.ask(REQUEST, "lent", "", 1)
    assert boards.free(tracker, "lent") == 0
    boards.until(lambda: boards.free(tracker, "lent") == 1)
    asking.close()


def test_a_board_finds_a_tracker_that_was_started_again() -> None:
    with boards.tracker() as first, boards.board(first) as board:
        first.kill()
        with boards.tracker(first.port) as second:
            assert second.port == first.port
            boards.until(lambda: boards.free(second) == 1)
            assert tracker_summary(boards.HOST, second.port)["key"].places == (board.place,)


def test_a_server_that_dies_is_replaced_behind_the_same_port(tracker: boards.Served) -> None:
    with boards.board(tracker, "killed") as board:
        (server,) = psutil.Process(board.pid).children()
        server.kill()
        boards.until(lambda: server.pid not in [child.pid for child in psutil.Process(board.pid).children()])
        boards.until(lambda: boards.free(tracker, "killed") == 1)
        assert tracker_summary(boards.HOST, tracker.port)["killed"].places == (board.place,)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_nothing_outlives_a_board(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with boards.board(None) as board, greet((boards.HOST, board.port), "key") as peer:
        assert peer.recv(4) == struct.pack("<i", MAGIC)
        family = psutil.Process(board.pid).children(recursive=True)
        boards.until(lambda: len(psutil.Process(board.pid).children(recursive=True)) == 2)
        os.kill(board.pid, number)
        psutil.wait_procs(family, timeout=30)
        assert not [process for process in family if process.is_running()]
        board.process.wait(timeout=30)
    assert number == signal.SIGKILL or not list(tmp_path.iterdir())
