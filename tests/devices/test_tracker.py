from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from hwnas.devices import NoTrackerError
from hwnas.devices.tracker import tracker_summary
from tests.devices import boards

GREETING = struct.pack("<i", 0x2F271)


@contextmanager
def answering(*answers: bytes) -> Iterator[int]:
    """A port where each thing that is said gets the next of `answers`, and silence after the last."""
    with socket.create_server((boards.HOST, 0)) as listening:

        def answer() -> None:
            peer, _ = listening.accept()
            with peer:
                for each in answers:
                    peer.recv(4096)
                    peer.sendall(each)
                while peer.recv(4096):
                    pass

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield int(listening.getsockname()[1])
        thread.join(10)


def message(value: object) -> bytes:
    text = json.dumps(value).encode()
    return struct.pack("<i", len(text)) + text


def test_a_tracker_without_boards_has_an_empty_summary() -> None:
    with boards.tracker() as tracker:
        assert tracker_summary(boards.HOST, tracker.port) == {}


def test_a_tracker_that_heard_garbage_answers_the_next_client() -> None:
    with boards.tracker() as tracker:
        for garbage in (b"GET / HTTP/1.1\r\n\r\n", GREETING + struct.pack("<i", -5)):
            with socket.create_connection((boards.HOST, tracker.port)) as peer:
                peer.sendall(garbage)
        assert tracker_summary(boards.HOST, tracker.port) == {}


def test_no_tracker_is_said_at_once_with_the_cure() -> None:
    port = boards.free_port()
    with pytest.raises(NoTrackerError, match=rf"no tracker at 127.0.0.1:{port} .*refused.*`hwnas devices tracker`"):
        tracker_summary(boards.HOST, port)


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ((b"HTTP/1.1 400 Bad Request",), "HTTP/1.1 400 Bad Request"),
        ((), "says nothing within 0.3 s"),
        ((GREETING, message("hello")), "it says 'hello'"),
        (
            (GREETING, message([0, {"queue_info": {}, "server_info": [{"key": "server:a", "addr": "there"}]}])),
            "it says",
        ),
        ((GREETING, struct.pack("<i", 4) + b"{,,}"), r"it says b'{,,}'"),
        ((GREETING, struct.pack("<i", 1 << 30)), "announces a message of 1073741824 bytes"),
    ],
)
def test_garbage_where_the_tracker_should_be_is_repeated(answers: tuple[bytes, ...], said: str) -> None:
    with (
        answering(*answers) as port,
        pytest.raises(NoTrackerError, match=f"what answers at 127.0.0.1:{port} is no TVM tracker: .*{said}"),
    ):
        tracker_summary(boards.HOST, port, timeout_s=0.3)


def test_a_tracker_that_falls_silent_is_no_tracker() -> None:
    with answering(GREETING) as port, pytest.raises(NoTrackerError, match="timed out"):
        tracker_summary(boards.HOST, port, timeout_s=0.3)
