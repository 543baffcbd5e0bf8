"""A finished demonstration of the small space, made once for all tests of the command line."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.engine.commands import COMMAND, FAST
from tests.engine.processes import ENVIRONMENT


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Its folder and what it answered."""
    out = tmp_path_factory.mktemp("demo")
    command = [*COMMAND, "demo", "--fast", "--out", str(out), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return out, json.loads(done.stdout)


@pytest.fixture
def run(demo: tuple[Path, dict[str, Any]], tmp_path: Path) -> tuple[Path, Path]:
    """A copy of the finished run to change: its folder for runs and its configuration."""
    shutil.copytree(demo[0], tmp_path / "runs")
    config = tmp_path / "run.toml"
    config.write_text(FAST)
    return tmp_path / "runs", config
