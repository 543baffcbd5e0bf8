"""A real browser opens the report: everything is drawn and nothing is complained of."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from hwnas.engine.front import Front
from hwnas.engine.report import ReportData, write_report
from tests.engine.test_report import FULL, PREDICTED

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser or google-chrome is installed")


@dataclass(frozen=True)
class Seen:
    """A page after its scripts have run, and what the browser's console said."""

    dom: str
    console: list[str]

    def charts(self) -> list[str]:
        """Places of charts in which plotly has drawn at least one line or marker."""
        pieces = re.split(r'<div id="(\w+)" class="chart', self.dom)
        drawn = zip(pieces[1::2], pieces[2::2], strict=True)
        return [name for name, inside in drawn if 'class="main-svg"' in inside and 'class="trace scatter' in inside]


def browse(path: Path, profile: Path) -> Seen:
    assert BROWSER is not None
    flags = (
        "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking "
        "--disable-component-update --disable-sync --enable-logging=stderr --virtual-time-budget=10000 --dump-dom"
    )
    command = [BROWSER, *flags.split(), f"--user-data-dir={profile}", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return Seen(done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line])


def seen(data: ReportData, folder: Path) -> Seen:
    write_report(data, folder / "report.html")
    return browse(folder / "report.html", folder / "profile")


def test_the_check_notices_a_page_that_complains_or_fetches(tmp_path: Path) -> None:
    policy = "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'; script-src 'unsafe-inline'\">"
    faults = (
        "console.error('said an error')",
        "console.warn('said a warning')",
        "throw new Error('threw an error')",
        "fetch('https://a.test/fetched')",
    )
    scripts = "".join(f"<script>{fault}</script>" for fault in faults)
    (tmp_path / "page.html").write_text(f"<!doctype html>{policy}{scripts}")
    said = "\n".join(browse(tmp_path / "page.html", tmp_path / "profile").console)
    for fault in ("said an error", "said a warning", "threw an error", "a.test/fetched"):
        assert fault in said


def test_the_check_notices_a_chart_that_is_not_drawn(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text('<!doctype html><div id="front" class="chart"></div>')
    assert browse(tmp_path / "page.html", tmp_path / "profile").charts() == []


def test_a_full_report_draws_every_chart_in_silence(tmp_path: Path) -> None:
    found = seen(FULL, tmp_path)
    assert found.console == []
    assert found.charts() == ["front", "search", "prediction", "loss", "accuracy"]


def test_an_empty_report_opens_in_silence(tmp_path: Path) -> None:
    found = seen(ReportData(title="Nothing yet", front=Front(())), tmp_path)
    assert found.console == []
    assert found.charts() == []
    assert "Not in this report" in found.dom


def test_a_predicted_front_is_drawn(tmp_path: Path) -> None:
    found = seen(replace(FULL, front=PREDICTED, checks=(), quality=None, history=()), tmp_path)
    assert found.console == []
    assert found.charts() == ["front", "search"]


def test_a_script_in_a_name_is_shown_and_not_run(tmp_path: Path) -> None:
    evil = "<script>console.error('ran')</script><img src=x onerror=\"console.error('ran')\">"
    points = [replace(point, genes={evil: evil}) for point in FULL.front.points]
    checks = tuple(replace(check, label=evil) for check in FULL.checks)
    found = seen(replace(FULL, device=evil, title=evil, front=Front.of(points), checks=checks), tmp_path)
    assert found.console == []
    assert found.charts() == ["front", "search", "prediction", "loss", "accuracy"]
    assert "&lt;script&gt;console.error" in found.dom
