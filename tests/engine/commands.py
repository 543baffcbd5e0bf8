"""The command line as a person runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.resources import files
from typing import Any

from tests.engine.processes import ENVIRONMENT

FAST = files("hwnas.engine").joinpath("digits_fast.toml").read_text(encoding="utf-8")
COMMAND = [sys.executable, "-c", "from hwnas.engine.cli import main; main()"]


def hwnas(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**ENVIRONMENT, **environment},
        timeout=600,
        check=False,
    )


def answered(*arguments: object, **environment: str) -> Any:
    """What a command that has to succeed answers with --json."""
    done = hwnas(*arguments, "--json", **environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def failure(*arguments: object, **environment: str) -> tuple[int, str]:
    """Exit code and message of a command that has to fail, without a traceback and in one line."""
    done = hwnas(*arguments, **environment)
    lines = [line for line in done.stderr.splitlines() if line.startswith("hwnas: ")]
    assert "Traceback" not in done.stderr, done.stderr
    assert len(lines) == 1, done.stderr
    return done.returncode, lines[0]
