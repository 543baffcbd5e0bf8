"""The emulated arm64 board of `arm64.sh` as a fixture: programs for a board are tried on a foreign machine's Python."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("arm64.sh")
TARGET = '{"kind": "llvm", "mcpu": "cortex-a72", "mtriple": "aarch64-linux-gnu"}'

_CANNOT = 77
_SET_UP_LIMIT_S = 600.0  # 20 s on a quiet machine with a near mirror


@dataclass(frozen=True, slots=True)
class Board:
    """A board that is set up. Its times are the emulator's: they say nothing of hardware."""

    folder: Path
    target: str = TARGET

    def run(self, *args: str | Path, timeout_s: float = 300.0) -> str:
        """What `python ARGS` printed on the board. Raises AssertionError with what it said, TimeoutExpired."""
        done = subprocess.run(self.command(*args), capture_output=True, text=True, timeout=timeout_s, check=False)
        if done.returncode:
            raise AssertionError(f"the board's Python left with {done.returncode}: {done.stderr}")
        return done.stdout

    @contextmanager
    def started(self, *args: str | Path) -> Iterator[subprocess.Popen[str]]:
        """`python ARGS` running on the board, such as a server; killed with all it has started at the end."""
        process = subprocess.Popen(
            self.command(*args), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()

    def command(self, *args: str | Path) -> list[str]:
        """What runs `python ARGS` on the board."""
        return [str(SCRIPT), "run", "--", *map(str, args)]


@pytest.fixture(scope="session")
def arm64_board() -> Board:
    """The board, set up once a machine; skips with the reason where that is not possible."""
    done = subprocess.run(
        [str(SCRIPT), "setup"],
        env={"PYTHON": sys.executable, **os.environ},
        capture_output=True,
        text=True,
        timeout=_SET_UP_LIMIT_S,
        check=False,
    )
    if done.returncode == _CANNOT:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    return Board(Path(done.stdout.strip()))
