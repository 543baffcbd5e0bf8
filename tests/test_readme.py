"""What the README shows is what the examples run."""

from __future__ import annotations

import subprocess
import sys
from importlib.resources import files
from pathlib import Path

from tests.engine.processes import ENVIRONMENT

ROOT = Path(__file__).parents[1]


def test_the_readme_shows_the_example() -> None:
    code = (ROOT / "examples" / "main_flow.py").read_text().split('"""', 2)[2].strip()
    assert f"```python\n{code}\n```" in (ROOT / "README.md").read_text()


def test_the_example_runs(tmp_path: Path) -> None:
    text = files("hwnas.engine").joinpath("digits_fast.toml").read_text(encoding="utf-8")
    (tmp_path / "run.toml").write_text(text.replace("epochs = 8", "epochs = 3"))
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "main_flow.py", "run.toml"],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "FrontPoint(" in done.stdout
    assert len(list((tmp_path / "runs" / "demo-fast" / "export").glob("point-*/manifest.json"))) >= 1
