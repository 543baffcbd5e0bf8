"""Real processes that are killed in the middle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


def finished(code: str, *arguments: object) -> str:
    """Run Python code to its end; what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        check=True,
        timeout=300,
    )
    return done.stdout


def killed(code: str, *arguments: object, at: str) -> list[str]:
    """Run Python code and kill -9 its whole process group at the line `at`; the lines before it."""
    lines = []
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        start_new_session=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == at:
            os.killpg(process.pid, signal.SIGKILL)
            break
        lines.append(line.strip())
    assert process.wait() == -signal.SIGKILL, f"ended before it printed {at!r}: {lines}"
    process.stdout.close()
    return lines
