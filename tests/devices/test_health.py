from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hwnas.devices import Device, NoTrackerError, health
from hwnas.devices.compile import Compiler
from hwnas.devices.health import TOLERANCE, check
from hwnas.devices.serving import BOARD_FILE, serve_command, serve_instructions
from tests.devices import boards

TARGET = '{"kind": "llvm"}'


@pytest.fixture(scope="module")
def compiler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compiler]:
    with Compiler(TARGET, cache=tmp_path_factory.mktemp("cache"), workers=1) as compiler:
        yield compiler


def test_a_board_is_checked_and_given_back(compiler: Compiler) -> None:
    with boards.tracker() as tracker, boards.board(tracker) as board:
        found = check(boards.tracked(tracker), compiler, budget_s=2.0)
        boards.until(lambda: boards.free(tracker) == 1)
    assert found.deviation is not None
    assert found.deviation <= TOLERANCE
    assert found.latency_ms is not None
    assert found.latency_ms > 0
    assert found.noise_floor is not None
    assert found.noise_floor >= 0
    assert (found.boards, found.before.board) == (1, board.place)
    assert found.before.identity == found.after.identity
    assert found.to_json()["device"] == boards.tracked(tracker).to_json()
    assert not [problem for problem in found.problems if "torch" in problem]


def test_a_wrong_output_is_a_problem(compiler: Compiler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "TOLERANCE", -1.0)
    found = check(Device("host", TARGET), compiler, budget_s=1.0)
    assert any("from torch's" in problem for problem in found.problems)


def test_what_cannot_be_reached_is_an_error(compiler: Compiler) -> None:
    address = f"tracker://127.0.0.1:{boards.free_port()}/key"
    with pytest.raises(NoTrackerError):
        check(Device("board", TARGET, runner="rpc", address=address), compiler)


def test_what_does_not_compile_is_a_problem(tmp_path: Path) -> None:
    with Compiler('{"kind": "llvm", "mtriple": "hexagon-unknown-linux-gnu"}', cache=tmp_path, workers=1) as other:
        found = check(Device("host", TARGET), other)
    assert found.deviation is None
    assert len(found.problems) == 1


def test_the_command_that_serves_this_machine_is_a_board() -> None:
    command = serve_command("key", host=boards.HOST, port=boards.free_port(), port_end=None)
    with boards.serve(command) as board:
        assert board.port == int(command[command.index("--port") + 1])


def test_the_instructions_name_file_tracker_and_key() -> None:
    text = serve_instructions("10.0.0.2:9191", "rpi4")
    for part in (
        str(BOARD_FILE),
        "python board.py --tracker 10.0.0.2:9191 --key rpi4",
        "adb reverse tcp:9191 tcp:9191",
    ):
        assert part in text
