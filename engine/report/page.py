"""One self-contained HTML page: plotly.js is inside once, and nothing is fetched from anywhere."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from plotly.io import to_json
from plotly.offline import get_plotlyjs

from hwnas.engine.report import charts, words
from hwnas.engine.report.charts import Chart
from hwnas.engine.report.data import ReportData
from hwnas.engine.report.markup import Html, element
from hwnas.engine.report.style import STYLE
from hwnas.engine.report.tables import commands, definitions, front_rows

# The page may run what is in it and fetch nothing.
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
_DRAW = """
for (const place of document.querySelectorAll(".chart")) {
  const figure = JSON.parse(document.getElementById(place.id + "-figure").textContent);
  Plotly.newPlot(place, figure.data, figure.layout, {responsive: true, displayModeBar: false});
}
function resize(layout) {
  for (const place of document.querySelectorAll(".chart")) Plotly.relayout(place, layout);
}
addEventListener("beforeprint", () => {
  for (const hidden of document.querySelectorAll("details.origin")) hidden.open = true;
  resize({autosize: false, width: 640});  // fits between the margins of A4 and of letter
});
addEventListener("afterprint", () => resize({autosize: true, width: null}));
"""


def write_report(data: ReportData, path: Path) -> None:
    """Write the page. A reader sees the old file or the new one, never half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with draft.open("w", encoding="utf-8") as file:
            file.write(page(data))
            file.flush()
            os.fsync(file.fileno())  # a rename may reach the disk before what it names
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def page(data: ReportData) -> str:
    """The whole page as text."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("link", rel="icon", href="data:,"),
        element("title", data.title),
        element("style", Html(STYLE)),
    )
    body = element("body", *_sections(data), _script(get_plotlyjs()), _script(_DRAW))
    return "<!doctype html>\n" + element("html", head, body, lang="en")


def _sections(data: ReportData) -> Iterator[Html]:
    facts = " \u00b7 ".join(text for text in (data.device, data.created) if text)
    missing = f"Not in this report: {', '.join(data.missing)}." if data.missing else ""
    yield element(
        "header",
        element("h1", data.title),
        _text(facts, "facts") if facts else Html(),
        _text(words.modelled_mark(data), "modelled") if data.modelled else Html(),
        _text(words.summary(data), "summary"),
        _missing(missing),
    )
    yield _front(data)
    yield _search(data)
    yield _prediction(data)
    yield _training(data)
    yield _device(data)
    yield _again(data)


def _front(data: ReportData) -> Html:
    points = data.front.points
    if not points:
        return _section("Front", _missing("No point is on the front: the search ended without one that was accepted."))
    if points[0].verified:
        how = "answered by the model, not measured" if data.modelled else "measured on the device"
        over = "" if data.test_size is None else f" over {data.test_size:,} images"
        note = (
            f"Filled circles were {how}, with 95 % intervals of the median latency and of the test "
            f"accuracy{over}. Open diamonds are where latency was predicted and accuracy validated during the search; "
            "a thin line joins the two."
        )
        if data.front.tied:
            note += f" Points {words.ties(data.front)}, in latency and, as far as these images tell, in accuracy."
    else:
        note = "No point was measured: latencies are predictions with their standard deviation, accuracies validation."
    return _section("Front", _text(note, "note"), _figure(charts.front_chart(data)), front_rows(data))


def _search(data: ReportData) -> Html:
    trace = data.trace
    if trace is None or not trace.evaluations:
        return _section("Search", _missing("The course of the search was not recorded."))
    note = (
        f"Share of the box up to {words.milliseconds(trace.reference_latency_ms)} ms and down to "
        f"{words.percent(trace.reference_accuracy)} accuracy that the front dominates: {trace.hypervolume[-1]:.4f} "
        f"after {words.plural(trace.evaluations[-1], 'evaluation')}."
    )
    return _section("Search", _text(note, "note"), _figure(charts.search_chart(trace)))


def _prediction(data: ReportData) -> Html:
    parts = [_text(words.quality_line(data), "note" if data.quality else "missing")]
    if data.checks:
        parts.append(_figure(charts.prediction_chart(data.checks)))
    if data.table is None:
        parts.append(_missing("Nothing is known of the latency table."))
    else:
        said = (
            f"The latency table holds {words.plural(data.table.blocks, 'block')}; "
            f"{data.table.failures} did not compile or run. "
            f"{words.plural(data.table.networks, 'whole network')} measured."
        )
        parts.append(_text(said, "note"))
    return _section("Predicted against measured latency", *parts)


def _training(data: ReportData) -> Html:
    if not data.history:
        return _section("Training", _missing("No training is recorded."))
    accuracy = charts.accuracy_chart(data.history)
    drawn = [_figure(charts.loss_chart(data.history))]
    drawn.append(_missing("No accuracy was evaluated while training.") if accuracy is None else _figure(accuracy))
    last = data.history[-1]
    note = f"{words.plural(len(data.history), 'epoch')}, loss {last.loss:.3f} at the end."
    return _section("Training", _text(note, "note"), element("div", *drawn, class_="pair"))


def _device(data: ReportData) -> Html:
    parts = []
    for name, found in (("Fingerprint", data.fingerprint), ("Protocol", data.protocol)):
        known = _missing("Not recorded.") if found is None else definitions(found.to_json())
        parts.append(element("div", element("h3", name), known))
    return _section("Device", element("div", *parts, class_="pair"))


def _again(data: ReportData) -> Html:
    known = _missing("The commands are not recorded.") if not data.commands else commands(data.commands)
    origin = _missing("Settings, versions and seeds are not recorded.")
    if data.provenance:
        title = element("summary", "Settings, versions, seeds and digests")
        origin = element("details", title, definitions(data.provenance), class_="origin")
    return _section("To get it again", known, origin)


def _section(title: str, *parts: Html) -> Html:
    return element("section", element("h2", title), *parts)


def _text(said: str, class_: str) -> Html:
    """A paragraph in which a number is never parted from its unit."""
    return element("p", re.sub(r"(?<=\d) (?=%|ms\b)", "\u00a0", said), class_=class_)


def _missing(text: str) -> Html:
    return _text(text, "missing") if text else Html()


def _figure(chart: Chart) -> Html:
    place = element("div", id=chart.name, class_="chart", role="img", aria_label=chart.label)
    # "<" could end the script element early, whatever a device or a gene is called
    figure = to_json(chart.figure, engine="json").replace("<", "\\u003c")
    held = element("script", Html(figure), type="application/json", id=f"{chart.name}-figure")
    return element("figure", place, held)


def _script(code: str) -> Html:
    return element("script", Html(code))
