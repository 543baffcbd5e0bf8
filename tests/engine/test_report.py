"""What a report says and how it is written; that a browser draws it is in test_report_browser.py."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from hwnas.devices import Fingerprint, Protocol
from hwnas.engine.front import Front, FrontPoint
from hwnas.engine.report import (
    Candidates,
    HypervolumeTrace,
    NetworkCheck,
    ReportData,
    TableSummary,
    front_table,
    write_report,
)
from hwnas.engine.report import page as page_module
from hwnas.engine.report.markup import Html, element
from hwnas.engine.report.page import page
from hwnas.engine.report.words import accuracy_interval, gene_lines, large, milliseconds, short, summary
from hwnas.engine.training.checkpoint import EpochRecord
from hwnas.latency.quality import PredictionQuality


def point(number: int, latency_ms: float, accuracy: float, *, verified: bool = True) -> FrontPoint:
    return FrontPoint(
        architecture=(number, 0),
        genes={"resolution": 16 + number, "s1.depth": 2, "s1.b1.kernel": 3, "s1.b2.kernel": 5},
        accuracy_validation=accuracy,
        accuracy_test=accuracy - 0.01 if verified else None,
        latency_predicted_ms=latency_ms * 1.05,
        latency_std_ms=latency_ms * 0.02,
        latency_ms=latency_ms if verified else None,
        latency_ci_ms=(latency_ms * 0.99, latency_ms * 1.02) if verified else None,
        latency_p99_ms=latency_ms * 1.4 if verified else None,
        macs=1_200_000,
        params=34_000,
        verified=verified,
    )


FIGURES = ((0.5, 0.90), (0.6, 0.95), (1.5, 0.97), (1.6, 0.80))
MEASURED = Front.of(point(i, *figures) for i, figures in enumerate(FIGURES))
PREDICTED = Front.of(point(i, *figures, verified=False) for i, figures in enumerate(FIGURES))
CHECKS = tuple(
    NetworkCheck(f"net {i}", role, ms * 1.02, ms, (ms * 0.99, ms * 1.01))
    for i, (role, ms) in enumerate([("fit", 0.5), ("check", 1.0), ("check", 1.6), ("front", 2.0)])  # type: ignore[arg-type]
)
FULL = ReportData(
    title="Digits",
    front=MEASURED,
    device="Raspberry Pi 4",
    created="2026-11-22",
    test_size=360,
    history=(EpochRecord(1, 2.0, 0.1), EpochRecord(2, 1.0, 0.05, 0.9, 0.7, 0.8)),
    trace=HypervolumeTrace((10, 20, 30), (0.5, 0.6, 0.65), 2.5, 0.8),
    candidates=Candidates(np.array([0.4, 1.0, 2.0]), np.array([0.8, 0.9, 0.1])),
    checks=CHECKS,
    quality=PredictionQuality.of([1.02, 1.63, 2.04], [1.0, 1.6, 2.0], noise_floor=0.004),
    table=TableSummary(blocks=120, failures=2, networks=4),
    fingerprint=Fingerprint("BCM2711", 4, ("neon",), "Linux", "tvm", "compiler", "{}", 1),
    protocol=Protocol(),
    provenance={"seed": 7, "versions": {"torch": "2.13.0"}, "mask": None, "flags": [True, False]},
    commands=("hwnas search config.yaml --seed 7",),
)
EMPTY = ReportData(title="Nothing yet", front=Front(()))


def without_plotly(text: str) -> str:
    """The page without the library in it."""
    return text.replace(page_module.get_plotlyjs(), "PLOTLYJS")


def test_plotly_is_in_the_page_once() -> None:
    assert without_plotly(page(FULL)).count("PLOTLYJS") == 1


def test_the_page_may_fetch_nothing_and_asks_for_nothing() -> None:
    text = without_plotly(page(FULL))
    assert "default-src 'none'" in text.replace("&#x27;", "'")
    assert "http:" not in text
    assert "https:" not in text
    assert " src=" not in text


def test_a_script_in_the_name_of_a_device_stays_text() -> None:
    evil = "<script>throw 1</script><img src=x onerror=alert(1)>"
    assert FULL.fingerprint is not None
    genes = {evil: 3}
    data = replace(
        FULL,
        title=evil,
        device=evil,
        created=evil,
        front=Front.of([replace(p, genes=genes) for p in MEASURED.points]),
        checks=(NetworkCheck(evil, "check", 1.0, 1.0),),
        fingerprint=replace(FULL.fingerprint, soc=evil, isa=(evil,)),
        provenance={evil: {evil: evil}, "list": [evil]},
        commands=(evil,),
    )
    text = without_plotly(page(data))
    assert "<script>throw" not in text
    assert "<img" not in text
    assert text.count("<script") == 5 + 2  # a figure for each of five charts, plotly.js, the drawing


def test_a_summary_says_best_fastest_knee_and_error_in_two_sentences() -> None:
    assert summary(FULL) == (
        "The search left 3 networks for Raspberry Pi 4, measured there: the most accurate labels 96.0 % of the test "
        "images right in 1.50 ms, the fastest 89.0 % in 0.500 ms, and past the knee at 0.600 ms and 94.0 % more "
        "accuracy gets dear. Predicted latencies were wrong by 2.0 % on average over 3 networks, where the device "
        "itself repeats a figure to within 0.4 %."
    )


def test_an_unverified_front_says_that_nothing_was_measured() -> None:
    data = replace(FULL, front=PREDICTED, quality=None, checks=())
    assert "with latencies that are predicted and not yet measured" in summary(data)
    assert "How wrong the predicted latencies are is not known" in summary(data)
    assert data.missing == ("measurements of the front", "check networks")
    assert "No point was measured" in page(data)


def test_a_modelled_front_is_marked_in_the_page_the_summary_and_the_terminal() -> None:
    model = Fingerprint("systolic 16x16", 1, (), "none", "simulator 1", "layers 1", "{}", 1, modelled=True)
    front = Front(MEASURED.points, MEASURED.dominated, {"fingerprint": model.to_json(), "modelled": True})
    data = replace(FULL, front=front, fingerprint=model, device="model-systolic-16x16")
    text = without_plotly(page(data))
    mark = "Modelled, not measured: model-systolic-16x16 is a model (systolic 16x16; simulator 1)."
    assert 'class="modelled"' in text
    assert mark in text
    assert "answered by the model, not measured" in text
    assert "modelled and not measured" in summary(data)
    assert "measured there" not in summary(data)
    assert "how far the model is from a chip is not known" in summary(data)
    assert "Front, modelled and not measured" in printed(front)
    assert "measured on the device" not in text


def test_a_measured_front_is_not_called_modelled() -> None:
    assert "Modelled" not in without_plotly(page(FULL))
    assert "modelled" not in printed(MEASURED)


def test_an_empty_report_says_what_is_missing() -> None:
    text = page(EMPTY)
    assert "Not in this report: points on the front, the course of the search, check networks" in text
    assert "No training is recorded" in text
    assert FULL.missing == ()
    assert "Not in this report" not in page(FULL)


def test_a_front_of_one_point_has_a_summary() -> None:
    assert "left one network for Raspberry Pi 4" in summary(replace(FULL, front=Front(MEASURED.points[:1])))


def test_a_report_takes_the_place_of_the_old_one_or_leaves_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new" / "report.html"
    write_report(EMPTY, path)
    before = path.read_bytes()

    def broken(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(OSError, match="disk full"):
        write_report(FULL, path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def printed(front: Front, *, width: int = 120) -> str:
    console = Console(width=width, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(front_table(front))
    return console.export_text()


def test_the_terminal_shows_a_row_a_point() -> None:
    text = printed(MEASURED)
    assert "Front, measured" in text
    assert [line.split("│")[2].strip() for line in text.splitlines() if line.startswith("│")] == [
        "0.500",
        "0.600",
        "1.50",
    ]
    assert "r17 s1:d2,k35" in text


def test_the_terminal_marks_predictions() -> None:
    assert "~0.525" in printed(PREDICTED)
    assert "predicted and not measured" in printed(PREDICTED)


def test_the_terminal_keeps_every_figure_at_80_columns() -> None:
    assert "0.630 +5.0 %" in printed(MEASURED, width=80)


def test_brackets_in_a_gene_are_not_terminal_markup() -> None:
    genes = {"[red]": "[bold]x"}
    assert "[bold]x" in printed(Front.of([replace(MEASURED.points[0], genes=genes)]))


def test_an_empty_front_has_a_table() -> None:
    assert "no points" in printed(Front(()))


def test_like_genes_stand_side_by_side() -> None:
    genes = {"resolution": 24, "s1.depth": 2, "s1.b1.kernel": 3, "s1.b2.kernel": 5, "s1.b1.expansion": 4.0}
    assert gene_lines(genes) == ("resolution 24", "s1: depth 2, kernel 3 5, expansion 4")
    assert short(genes) == "r24 s1:d2,k35,e4"
    assert short({"a.width": 16, "a.b.width": 24}) == "a:w16.24"


@pytest.mark.parametrize(
    ("value", "said"), [(0.0, "0"), (0.03124, "0.0312"), (1.236, "1.24"), (12.36, "12.4"), (153.2, "153")]
)
def test_milliseconds_have_three_digits(value: float, said: str) -> None:
    assert milliseconds(value) == said


@given(st.floats(1e-6, 1e6))
def test_milliseconds_read_back_to_half_a_per_cent(value: float) -> None:
    assert float(milliseconds(value)) == pytest.approx(value, rel=0.0051)


def test_counts_have_a_prefix() -> None:
    assert [large(n) for n in (12, 34_000, 1_234_567, 2_000_000_000)] == ["12", "34 k", "1.23 M", "2 G"]


@given(images=st.integers(1, 10_000), data=st.data())
def test_an_accuracy_lies_in_its_interval(images: int, data: st.DataObject) -> None:
    accuracy = data.draw(st.integers(0, images)) / images
    low, high = accuracy_interval(accuracy, images)
    assert -1e-12 <= low <= accuracy + 1e-12
    assert accuracy - 1e-12 <= high <= 1 + 1e-12


def test_candidates_need_a_latency_and_an_accuracy_each() -> None:
    with pytest.raises(ValueError, match="one number a candidate"):
        Candidates(np.array([1.0]), np.array([0.5, 0.6]))


@given(st.text())
def test_text_in_an_element_is_escaped(text: str) -> None:
    made = element("p", text, title=text)
    assert made.count("<") == 2
    assert made.count('"') == 2
    assert element("p", Html("<b>")) == "<p><b></p>"
