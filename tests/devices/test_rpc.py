from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from hwnas.devices import (
    BoardLostError,
    Device,
    DeviceError,
    KernelHung,
    Measurement,
    NoFreeBoardError,
    NoTrackerError,
    RunFailure,
    UnknownKeyError,
    WrongBoardError,
    open_runner,
)
from hwnas.devices.board import PUT, UPDATE_INFO, Tracker
from hwnas.devices.runners.rpc import Address, RpcRunner, parse_address
from hwnas.devices.runners.rpc import boards as board_count
from tests.devices import artefacts, boards
from tests.devices.runner_contract import SHORT, RunnerContract

X = np.arange(6, dtype=np.float32).reshape(2, 3)
ARM = '{"kind": "llvm", "mtriple": "aarch64-linux-gnu"}'


@pytest.fixture(scope="module")
def tracker() -> Iterator[boards.Served]:
    with boards.tracker() as tracker:
        yield tracker


@pytest.fixture(scope="module")
def board(tracker: boards.Served) -> Iterator[boards.Served]:
    """The only board under "key"."""
    with boards.board(tracker) as board:
        yield board


@pytest.fixture(scope="module")
def alone() -> Iterator[boards.Served]:
    """A board that no tracker knows."""
    with boards.board(None) as board:
        yield board


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return artefacts.add_one(tmp_path_factory.mktemp("library") / "add_one.so")


@pytest.fixture
def hang(tmp_path: Path) -> Path:
    return artefacts.hanging(tmp_path / "hang.so")


class TestTracked(RunnerContract):
    @pytest.fixture
    def device(self, tracker: boards.Served, board: boards.Served) -> Device:
        return boards.tracked(tracker)

    @pytest.fixture
    def artefact(self, library: Path) -> Path:
        return library

    @pytest.fixture
    def broken(self, tmp_path: Path) -> Path:
        path = tmp_path / "broken.so"
        path.write_text("not a library")
        return path


def opened(device: Device, **options: float) -> RpcRunner:
    runner = RpcRunner(device, compiler="compiler 1", **options)
    runner.open()
    return runner


def test_an_output_is_that_of_the_network(alone: boards.Served, library: Path) -> None:
    runner = open_runner(boards.direct(alone))
    assert np.array_equal(runner.run(library, [X]), X + 1)
    runner.close()


def test_what_the_board_grants_is_recorded(alone: boards.Served, library: Path) -> None:
    runner = opened(boards.direct(alone))
    runner.time([library], replace(SHORT, pinned=True, niceness=0))
    fingerprint = runner.fingerprint()
    assert fingerprint.niceness == 0
    assert len(fingerprint.pinned_to) == 1
    assert fingerprint.board == alone.place
    assert fingerprint.runtime.startswith("tvm 0.")
    runner.close()


def test_equal_boards_are_one_device(tracker: boards.Served, alone: boards.Served, board: boards.Served) -> None:
    first, second = opened(boards.tracked(tracker)), opened(boards.direct(alone))
    assert first.fingerprint().board != second.fingerprint().board
    assert first.fingerprint().identity == second.fingerprint().identity
    first.close()
    second.close()


def test_no_file_stays_on_the_board(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with boards.board(None) as board:
        runner = opened(boards.direct(board))
        runner.time([library], SHORT)
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
        runner.close()


# ---- five ways of being lost ----


def test_no_tracker_is_an_error_with_its_cure() -> None:
    device = Device("board", "{}", runner="rpc", address=f"tracker://127.0.0.1:{boards.free_port()}/key")
    with pytest.raises(NoTrackerError, match=r"no tracker at .*`hwnas devices tracker`"):
        open_runner(device)


def test_garbage_where_the_tracker_should_be_is_repeated() -> None:
    with socket.create_server((boards.HOST, 0)) as listening:

        def answer() -> None:
            peer, _ = listening.accept()
            with peer:
                peer.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")

        threading.Thread(target=answer, daemon=True).start()
        address = f"tracker://127.0.0.1:{listening.getsockname()[1]}/key"
        with pytest.raises(NoTrackerError, match=r"is no TVM tracker: .*SSH-2\.0"):
            open_runner(Device("board", "{}", runner="rpc", address=address))


def test_an_unknown_key_names_the_known_ones(tracker: boards.Served, board: boards.Served) -> None:
    with pytest.raises(UnknownKeyError, match=r"no board under the key 'rpi9' \(known: .*key"):
        open_runner(boards.tracked(tracker, "rpi9"))


def test_a_board_asked_directly_by_a_wrong_key_says_so(alone: boards.Served) -> None:
    with pytest.raises(UnknownKeyError, match="does not answer to the key 'rpi9'"):
        open_runner(boards.direct(alone, "rpi9"))


def test_a_busy_board_is_an_error_after_the_wait_and_free_afterwards(
    tracker: boards.Served, board: boards.Served, alone: boards.Served
) -> None:
    for device, who in (
        (boards.tracked(tracker), f"busy: {board.place}"),
        (boards.direct(alone), "serves another client"),
    ):
        first = opened(device)
        with pytest.raises(NoFreeBoardError, match=who):
            opened(device, wait_s=0.5)
        first.close()
        opened(device).close()


def test_no_server_is_a_lost_board() -> None:
    address = f"rpc://127.0.0.1:{boards.free_port()}"
    with pytest.raises(BoardLostError, match=r"no board answers at .*`hwnas devices serve`"):
        open_runner(Device("board", '{"kind": "llvm"}', runner="rpc", address=address))


def test_a_hung_kernel_fails_alone_and_the_board_goes_on(
    tracker: boards.Served, board: boards.Served, library: Path, hang: Path
) -> None:
    runner = opened(boards.tracked(tracker))
    hung, last = runner.time([hang, library], replace(SHORT, timeout_s=2.0))
    assert isinstance(hung, KernelHung)
    assert isinstance(last, Measurement)
    assert len(last.runs_ms) == SHORT.runs
    assert np.array_equal(runner.run(library, [X]), X + 1)
    runner.close()
    boards.until(lambda: boards.free(tracker) == 1)


def test_after_a_hang_the_same_board_goes_on_though_another_is_free(
    tracker: boards.Served, library: Path, hang: Path
) -> None:
    with boards.board(tracker, "two"), boards.board(tracker, "two"):
        runner = opened(boards.tracked(tracker, "two"))
        before = runner.fingerprint().board
        hung, last = runner.time([hang, library], replace(SHORT, timeout_s=2.0))
        assert isinstance(hung, KernelHung)
        assert isinstance(last, Measurement)
        assert runner.fingerprint().board == before
        boards.until(lambda: boards.free(tracker, "two") == 1)  # what was held meanwhile has been given back
        runner.close()


def test_a_crash_fails_alone_and_the_board_goes_on(
    tracker: boards.Served, board: boards.Served, library: Path, tmp_path: Path
) -> None:
    crash = artefacts.crashing(tmp_path / "crash.so")
    runner = opened(boards.tracked(tracker))
    first, failed, last = runner.time([library, crash, library], SHORT)
    assert isinstance(failed, RunFailure)
    assert f"its process on {board.place} ended" in str(failed)
    assert isinstance(first, Measurement)
    assert isinstance(last, Measurement)
    runner.close()


def test_a_board_killed_in_the_middle_is_lost_and_another_takes_over(
    tracker: boards.Served, library: Path, tmp_path: Path
) -> None:
    marker = tmp_path / "marker"
    stop = artefacts.library(tmp_path / "stop.so", f'fclose(fopen("{marker}", "w")); for (;;) pause();')
    with boards.board(tracker, "farm") as first, boards.board(tracker, "farm") as second:
        runner = opened(boards.tracked(tracker, "farm"), return_s=1.0)
        under_way, other = (first, second) if runner.fingerprint().board == first.place else (second, first)
        lost: list[BaseException] = []

        def visit() -> None:
            try:
                runner.time([stop], SHORT)
            except DeviceError as error:
                lost.append(error)

        thread = threading.Thread(target=visit)
        thread.start()
        boards.until(marker.exists)
        under_way.kill()
        thread.join(60)
        assert isinstance(lost[0], BoardLostError), lost
        (timed,) = runner.time([library], SHORT)
        assert isinstance(timed, Measurement)
        assert runner.fingerprint().board == other.place
        runner.close()


def test_a_dead_board_that_the_tracker_still_shows_does_not_stand_in_the_way(tracker: boards.Served) -> None:
    dead = Tracker((boards.HOST, tracker.port))
    dead.ask(UPDATE_INFO, {"key": "server:undead", "addr": [boards.HOST, boards.free_port()]})
    dead.ask(PUT, "undead", [boards.free_port(), "undead:0.5"], boards.HOST)
    with boards.board(tracker, "undead") as living:
        runner = opened(boards.tracked(tracker, "undead"))
        assert runner.fingerprint().board == living.place
        runner.close()
    dead.ask(PUT, "undead", [boards.free_port(), "undead:0.6"], boards.HOST)
    with pytest.raises(BoardLostError, match="the tracker lent a board that is not there: no board answers"):
        opened(boards.tracked(tracker, "undead"))
    dead.close()


def test_a_session_that_grew_old_is_replaced_before_it_ends(alone: boards.Served, library: Path) -> None:
    runner = opened(boards.direct(alone), session_s=2.0)
    boards.until(lambda: psutil.Process(alone.pid).children(recursive=True)[1:] == [])  # the board ended it
    assert np.array_equal(runner.run(library, [X]), X + 1)
    runner.close()


def test_a_board_that_dies_between_visits_is_lost(library: Path) -> None:
    with boards.board(None) as board:
        runner = opened(boards.direct(board))
        runner.time([library], SHORT)
        board.kill()
        with pytest.raises(BoardLostError, match=f"no board answers at {board.place}"):
            runner.time([library], SHORT)
        with pytest.raises(BoardLostError):
            runner.run(library, [X])
        runner.close()


def test_a_killed_client_leaves_the_board_free_even_with_a_kernel_that_hangs(
    tracker: boards.Served, board: boards.Served, tmp_path: Path
) -> None:
    marker = tmp_path / "marker"
    stop = artefacts.library(tmp_path / "stop.so", f'fclose(fopen("{marker}", "w")); for (;;) pause();')
    boards.until(lambda: boards.free(tracker) == 1)
    code = (
        "from pathlib import Path\nfrom hwnas.devices import Device, Protocol, open_runner\n"
        f"device = Device.from_json({boards.tracked(tracker).to_json()!r})\n"
        f"open_runner(device).time([Path({str(stop)!r})], Protocol())\n"
    )
    client = subprocess.Popen([sys.executable, "-c", code])
    boards.until(marker.exists)
    assert boards.free(tracker) == 0
    os.kill(client.pid, signal.SIGKILL)
    client.wait()
    boards.until(lambda: boards.free(tracker) == 1)
    assert len(psutil.Process(board.pid).children(recursive=True)) == 1


def test_the_board_ends_a_session_whose_time_is_up(tracker: boards.Served, board: boards.Served, hang: Path) -> None:
    runner = opened(boards.tracked(tracker), session_s=2.0)
    (failed,) = runner.time([hang], SHORT)  # the client itself would wait for 30 s
    assert isinstance(failed, RunFailure)
    assert not isinstance(failed, KernelHung)
    runner.close()
    boards.until(lambda: boards.free(tracker) == 1)


# ---- other boards ----


def test_a_board_of_another_architecture_is_refused_and_given_back(
    tracker: boards.Served, board: boards.Served
) -> None:
    with pytest.raises(WrongBoardError, match="is x86_64, and the device's target is for aarch64"):
        open_runner(boards.tracked(tracker, target=ARM))
    boards.until(lambda: boards.free(tracker) == 1)


def test_a_library_for_another_machine_is_not_sent(alone: boards.Served, library: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.so"
    data = bytearray(library.read_bytes())
    data[18:20] = (183).to_bytes(2, "little")
    foreign.write_bytes(data)
    runner = opened(boards.direct(alone))
    with pytest.raises(RunFailure, match=r"foreign\.so: .*it is for aarch64"):
        runner.run(foreign, [X])
    runner.close()


def test_a_board_without_the_accelerator_is_refused(alone: boards.Served) -> None:
    with pytest.raises(WrongBoardError, match="shows no metal device"):
        open_runner(boards.direct(alone, target='{"kind": "metal"}'))


def test_the_server_of_tvm_itself_serves_too(library: Path) -> None:
    port = boards.free_port()
    command = [
        sys.executable,
        "-m",
        "tvm.exec.rpc_server",
        "--host",
        boards.HOST,
        "--port",
        str(port),
        "--port-end",
        str(port + 1),
    ]
    server = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    served = boards.Served(server, port)
    try:
        boards.until(lambda: _listens(port))
        runner = opened(boards.direct(served, ""))
        assert np.array_equal(runner.run(library, [X]), X + 1)
        (timed,) = runner.time([library], SHORT)
        assert isinstance(timed, Measurement)
        fingerprint = runner.fingerprint()
        assert (fingerprint.soc, fingerprint.runtime, fingerprint.niceness) == ("unknown", "tvm unknown", None)
        runner.close()
    finally:
        served.kill()


def _listens(port: int) -> bool:
    with open("/proc/net/tcp") as table:
        return any(f":{port:04X} 00000000:0000 0A" in line for line in table)


def test_only_tvm_runs_over_rpc(alone: boards.Served) -> None:
    with pytest.raises(DeviceError, match=r"names the runtime 'onnxruntime'.*over RPC only tvm"):
        open_runner(replace(boards.direct(alone), runtime="onnxruntime"))


def test_addresses_are_read() -> None:
    assert parse_address("tracker://farm.lan:9190/rpi4-a") == Address("farm.lan", 9190, "rpi4-a", True)
    assert parse_address("rpc://[::1]:9090") == Address("::1", 9090, "", False)
    assert parse_address("rpc://10.0.0.2:9090/key") == Address("10.0.0.2", 9090, "key", False)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tracker://host:9190",
        "tracker://host:9190/",
        "rpc://host",
        "ssh://host:22/key",
        "rpc://h:99999",
        "rpc://h:1/a b",
    ],
)
def test_an_address_of_another_form_names_the_forms(text: str) -> None:
    with pytest.raises(DeviceError, match="is no address of a board: write tracker://HOST:PORT/KEY or rpc://"):
        parse_address(text)


def test_boards_are_counted_busy_or_free(tracker: boards.Served, board: boards.Served, alone: boards.Served) -> None:
    runner = opened(boards.tracked(tracker))
    assert board_count(boards.tracked(tracker)) == 1
    assert board_count(boards.tracked(tracker, "nobody")) == 0
    assert board_count(boards.direct(alone)) == 1
    runner.close()
