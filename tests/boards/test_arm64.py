"""The board of the script runs another machine's Python, or the script says in a line why it cannot be set up."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.boards.arm64 import SCRIPT, Board


def script(*args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(SCRIPT), *args], env={**os.environ, **environment}, capture_output=True, text=True, timeout=60, check=False
    )


def test_the_board_is_another_machine(arm64_board: Board) -> None:
    assert arm64_board.run("-c", "import platform; print(platform.machine())") == "aarch64\n"


def test_the_board_has_the_versions_that_this_machine_compiles_with(arm64_board: Board) -> None:
    pins = (SCRIPT.parents[2] / "constraints.txt").read_text().split()
    folders = {path.name for path in (arm64_board.folder / "site").glob("*tvm*.dist-info")}
    versions = {f"{pin.replace('-', '_').replace('==', '-')}.dist-info" for pin in pins if pin.startswith("apache-tvm")}
    assert folders == versions


def test_a_program_on_the_board_ends_with_its_block(arm64_board: Board) -> None:
    with arm64_board.started("-c", "import time; print('up', flush=True); time.sleep(600)") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
    assert process.returncode == -9


def test_a_program_that_fails_on_the_board_is_heard(arm64_board: Board) -> None:
    with pytest.raises(AssertionError, match=r"left with 1.*no such board"):
        arm64_board.run("-c", "raise SystemExit('no such board')")


def test_where_it_cannot_be_set_up_it_leaves_with_77_and_a_line(tmp_path: Path) -> None:
    done = script("setup", "--cache", str(tmp_path), PYTHON="/bin/false")
    assert done.returncode == 77
    assert done.stderr == "no arm64 board here: /bin/false has no pip: set PYTHON to one that has\n"
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


@pytest.mark.parametrize("args", [(), ("start",), ("run", "--cache")])
def test_a_wrong_call_says_how_to_call_it(args: tuple[str, ...]) -> None:
    done = script(*args)
    assert done.returncode == 2
    assert "arm64.sh run" in done.stderr
