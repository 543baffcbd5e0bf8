"""This machine as the place where artefacts run: loaded by the timing process, by its path."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any


class Here:
    """This machine with one runtime."""

    def __init__(self, board: Any, runtime: Any, threads: int) -> None:
        self._board = board
        self._runtime = runtime
        self._threads = threads

    def settle(self, pinned: bool, niceness: int) -> tuple[int, tuple[int, ...]]:
        """Pin to one core and take the priority asked for, as far as the system permits: what was granted."""
        granted: tuple[int, tuple[int, ...]] = self._board.settle(pinned, niceness)
        return granted

    def load(self, path: str) -> Any:
        """Load an artefact with the runtime."""
        return self._runtime.load(path, self._threads)

    def facts(self) -> dict[str, Any]:
        """Nothing: the parent runs on the same machine and reads for itself."""
        return {}


def open_bench(arguments: dict[str, Any]) -> Here:
    """`arguments`: "runtime", the path of the runtime's file, and "threads"."""
    timing = sys.modules["__main__"]
    board = timing.module_at(str(Path(__file__).resolve().parents[1] / "board.py"))
    board.flush_denormals()
    return Here(board, timing.module_at(arguments["runtime"]), arguments["threads"])
