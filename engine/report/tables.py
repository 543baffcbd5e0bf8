"""The tables of the page."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hwnas.engine.front import FrontPoint
from hwnas.engine.report import words
from hwnas.engine.report.data import ReportData
from hwnas.engine.report.markup import Html, element, join

_HEADINGS = ("#", "latency (ms)", "p99 (ms)", "predicted (ms)", "accuracy", "validation", "MACs", "params")


def front_rows(data: ReportData) -> Html:
    """A row a point, fastest first, with the options of its genes."""
    bend = data.front.knee()
    headings = [element("th", name) for name in _HEADINGS] + [element("th", "architecture", class_="text")]
    rows = [
        element("tr", *_cells(number, point, data.test_size, is_knee=point is bend))
        for number, point in enumerate(data.front.points, 1)
    ]
    table = element("table", element("thead", element("tr", *headings)), element("tbody", *rows), class_="figures")
    return element("div", table, class_="scroll")


def definitions(values: Mapping[str, Any]) -> Html:
    """Names and values; nested names are joined by dots."""
    rows = [element("tr", element("th", name), element("td", value)) for name, value in _flat(values)]
    return element("div", element("table", element("tbody", *rows), class_="plain"), class_="scroll")


def commands(lines: Sequence[str]) -> Html:
    """Shell commands, one a line."""
    return element("pre", element("code", "\n".join(lines)))


def _cells(number: int, point: FrontPoint, test_size: int | None, *, is_knee: bool) -> Iterator[Html]:
    yield element("td", str(number))
    ci = point.latency_ci_ms if point.verified else None
    latency = words.milliseconds(point.known_latency_ms)
    yield _figure(latency if point.verified else f"~{latency}", ci and " to ".join(map(words.milliseconds, ci)))
    yield _figure("" if point.latency_p99_ms is None else words.milliseconds(point.latency_p99_ms))
    yield _figure(words.milliseconds(point.latency_predicted_ms), words.prediction_error(point))
    found = words.interval(point, test_size)
    tested = point.verified and point.accuracy_test is not None
    yield _figure(
        words.percent(point.known_accuracy) if tested else "",
        found and f"{100 * found[0]:.1f} to {words.percent(found[1])}",
    )
    yield _figure(words.percent(point.accuracy_validation))
    yield _figure(words.large(point.macs))
    yield _figure(words.large(point.params))
    badge = [element("span", "knee", class_="badge")] if is_knee else []
    lines = [join(line, element("br")) for line in words.gene_lines(point.genes)]
    genes = element("details", element("summary", words.short(point.genes)), *lines)
    yield element("td", *badge, genes, class_="text genes")


def _figure(value: str, below: str | None = None) -> Html:
    return element("td", value, *([element("br"), element("small", below)] if below else []))


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        else:
            yield name, _said(value)


def _said(value: object) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)) and not any(isinstance(item, (Mapping, list, tuple)) for item in value):
        return ", ".join(map(str, value)) or "none"
    return json.dumps(value, default=str) if isinstance(value, (list, tuple)) else str(value)
