"""The command line as a person runs it: in this process, because a fresh one takes five seconds to load torch."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import traceback
from contextlib import redirect_stderr, redirect_stdout
from importlib.resources import files
from typing import Any
from unittest import mock

from hwnas.engine.cli.app import app

FAST = files("hwnas.engine").joinpath("digits_fast.toml").read_text(encoding="utf-8")
COMMAND = [sys.executable, "-c", "from hwnas.engine.cli import main; main()"]  # in a process of its own


def hwnas(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    said, told, code = io.StringIO(), io.StringIO(), 0
    command = [str(argument) for argument in arguments]
    wide = {"COLUMNS": "200", **environment}
    with mock.patch.dict(os.environ, wide), redirect_stdout(said), redirect_stderr(told):
        try:
            app(command)
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else 1
        except Exception:
            traceback.print_exc()
            code = 1
    return subprocess.CompletedProcess(command, code, said.getvalue(), told.getvalue())


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
