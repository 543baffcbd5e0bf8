"""The charts of a report as plotly figures, in colours that hold on a light and on a dark page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import plotly.graph_objects as go

from hwnas.engine.front import FrontPoint
from hwnas.engine.report.data import Candidates, HypervolumeTrace, NetworkCheck, ReportData, Role
from hwnas.engine.report.words import gene_lines, interval, milliseconds, percent
from hwnas.engine.training.checkpoint import EpochRecord

# Okabe and Ito's colours for every kind of colour vision, darkened or lightened to a contrast of 3:1 or more
# both on white and on the dark page.
BLUE, ORANGE, GREEN, GREY = "#2a7ab8", "#c9700a", "#0a8f6a", "#878d96"
_BLUE_FAINT = "rgba(42,122,184,0.55)"  # intervals stand behind their points
_FAINT = "rgba(135,141,150,0.45)"
_SHOWN_CANDIDATES = 3000  # SVG stays quick up to there


@dataclass(frozen=True, slots=True)
class Chart:
    """A figure with the identity of its place on the page and one sentence for those who do not see it."""

    name: str
    label: str
    figure: go.Figure


def front_chart(data: ReportData) -> Chart:
    """Accuracy over latency: the front as a step line, what was predicted for it, and everything behind it."""
    front = data.front
    figure = _figure("latency (ms)", "accuracy", y_format=".1~%")
    if data.candidates is not None and len(data.candidates.latency_ms):
        figure.add_trace(_background(data.candidates))
    verified = [point for point in front.points if point.verified]
    if front.dominated:
        beaten = "beaten or not measured" if verified else "beaten"
        figure.add_trace(_markers(front.dominated, beaten, GREY, size=6, opacity=0.6))
    if verified:
        figure.add_trace(_moves(verified))
        figure.add_trace(_predicted(verified))
    if front.points:
        figure.add_trace(_front_line(front.points, data.test_size))
        bend = front.knee()
        figure.add_annotation(
            x=bend.known_latency_ms, y=bend.known_accuracy, text="knee", ax=26, ay=34, arrowcolor=GREY, arrowwidth=1
        )
        figure.update_yaxes(range=_accuracy_range(data))
    return Chart("front", "Accuracy over latency of the front and of every candidate behind it", figure)


def search_chart(trace: HypervolumeTrace) -> Chart:
    """Hypervolume over evaluations."""
    figure = _figure("evaluated candidates", "hypervolume, normalised")
    figure.add_trace(
        go.Scatter(
            x=list(trace.evaluations),
            y=list(trace.hypervolume),
            mode="lines" if len(trace.evaluations) > 1 else "markers",
            line={"color": BLUE, "width": 2, "shape": "hv"},
            hovertemplate="%{x} evaluations: %{y:.4f}<extra></extra>",
            showlegend=False,
        )
    )
    return Chart("search", "Normalised hypervolume over evaluated candidates", figure)


def prediction_chart(checks: Sequence[NetworkCheck]) -> Chart:
    """Predicted over measured latency with the lines of equality and of 10 % error."""
    figure = _figure("measured (ms)", "predicted (ms)")
    ends = np.array([figures for check in checks for figures in (check.predicted_ms, check.measured_ms)])
    low, high = float(ends.min()) * 0.85, float(ends.max()) * 1.08
    for slope, dash, name in ((1.0, "solid", "equal"), (0.9, "dot", "10 % off"), (1.1, "dot", "")):
        line = {"color": GREY, "width": 1, "dash": dash}
        figure.add_trace(
            go.Scatter(
                x=[low, high], y=[low * slope, high * slope], mode="lines", line=line, name=name,
                showlegend=bool(name), hoverinfo="skip",
            )
        )  # fmt: skip
    for role, (name, color, symbol) in _ROLES.items():
        held = [check for check in checks if check.role == role]
        if held:
            figure.add_trace(_pairs(held, name, color, symbol))
    figure.update_xaxes(range=[low, high])
    figure.update_yaxes(range=[low, high])
    return Chart("prediction", "Predicted over measured latency of whole networks", figure)


def loss_chart(history: Sequence[EpochRecord]) -> Chart:
    """Training loss over epochs."""
    figure = _figure("epoch", "loss")
    epochs = [record.epoch for record in history]
    figure.add_trace(
        _curve(epochs, [record.loss for record in history], "loss", color=BLUE, dash="solid", digits=".4f")
    )
    figure.update_layout(showlegend=False)
    return Chart("loss", "Training loss over epochs", figure)


def accuracy_chart(history: Sequence[EpochRecord]) -> Chart | None:
    """Validation accuracies over epochs; None where none was evaluated."""
    figure = _figure("epoch", "validation accuracy", y_format=".0%")
    for name, color, dash in (("largest", BLUE, "solid"), ("random", GREEN, "dash"), ("smallest", ORANGE, "dot")):
        held = [(r.epoch, a) for r in history if (a := getattr(r, f"accuracy_{name}")) is not None]
        if held:
            figure.add_trace(
                _curve(
                    [e for e, _ in held], [a for _, a in held], f"{name} subnet", color=color, dash=dash, digits=".1%"
                )
            )
    if not figure.data:
        return None
    return Chart("accuracy", "Validation accuracy of the largest, a random and the smallest subnet", figure)


# ---- traces ---------------------------------------------------------------------------------------------------------

_ROLES: dict[Role, tuple[str, str, str]] = {
    "fit": ("fitted on", GREY, "circle-open"),
    "check": ("held out", BLUE, "circle"),
    "front": ("on the front", ORANGE, "diamond"),
}


def _background(candidates: Candidates) -> go.Scatter:
    shown = np.linspace(0, len(candidates.latency_ms) - 1, min(len(candidates.latency_ms), _SHOWN_CANDIDATES))
    rows = np.unique(shown.astype(np.int64))
    return go.Scatter(
        x=np.asarray(candidates.latency_ms)[rows].tolist(),
        y=np.asarray(candidates.accuracy)[rows].tolist(),
        mode="markers",
        marker={"color": _FAINT, "size": 4},
        name="candidates, predicted",
        hovertemplate="candidate: ~%{x:.3g} ms, %{y:.1%}<extra></extra>",
    )


def _markers(points: Sequence[FrontPoint], name: str, color: str, *, size: int, opacity: float) -> go.Scatter:
    return go.Scatter(
        x=[point.known_latency_ms for point in points],
        y=[point.known_accuracy for point in points],
        mode="markers",
        marker={"color": color, "size": size},
        opacity=opacity,
        name=name,
        text=[_hover(point) for point in points],
        hovertemplate="%{text}<extra></extra>",
    )


def _front_line(points: Sequence[FrontPoint], test_size: int | None) -> go.Scatter:
    trace = _markers(points, "front", BLUE, size=9, opacity=1)
    # accuracy holds until the next point pays more milliseconds for more of it
    trace.update(mode="lines+markers", line={"color": BLUE, "width": 2, "shape": "hv"})
    if not points[0].verified:
        trace.update(name="front, predicted", marker_symbol="circle-open")
        trace.error_x = _error([point.latency_std_ms for point in points], [point.latency_std_ms for point in points])
        return trace
    trace.update(name="front, measured")
    ci = [p.latency_ci_ms or (p.known_latency_ms, p.known_latency_ms) for p in points]
    trace.error_x = _error(
        [max(0.0, p.known_latency_ms - low) for p, (low, _) in zip(points, ci, strict=True)],
        [max(0.0, high - p.known_latency_ms) for p, (_, high) in zip(points, ci, strict=True)],
    )
    found = [interval(p, test_size) or (p.known_accuracy, p.known_accuracy) for p in points]
    trace.error_y = _error(
        [max(0.0, p.known_accuracy - low) for p, (low, _) in zip(points, found, strict=True)],
        [max(0.0, high - p.known_accuracy) for p, (_, high) in zip(points, found, strict=True)],
    )
    return trace


def _predicted(points: Sequence[FrontPoint]) -> go.Scatter:
    return go.Scatter(
        x=[point.latency_predicted_ms for point in points],
        y=[point.accuracy_validation for point in points],
        mode="markers",
        marker={"color": ORANGE, "symbol": "diamond-open", "size": 8},
        name="as predicted",
        text=[_hover(point) for point in points],
        hovertemplate="predicted for %{text}<extra></extra>",
    )


def _moves(points: Sequence[FrontPoint]) -> go.Scatter:
    """A thin line from where each point was predicted to where it was found."""
    x: list[float | None] = []
    y: list[float | None] = []
    for point in points:
        x += [point.latency_predicted_ms, point.known_latency_ms, None]
        y += [point.accuracy_validation, point.known_accuracy, None]
    line = {"color": ORANGE, "width": 1}
    return go.Scatter(x=x, y=y, mode="lines", line=line, opacity=0.7, hoverinfo="skip", showlegend=False)


def _pairs(checks: Sequence[NetworkCheck], name: str, color: str, symbol: str) -> go.Scatter:
    ci = [check.ci_ms or (check.measured_ms, check.measured_ms) for check in checks]
    trace = go.Scatter(
        x=[check.measured_ms for check in checks],
        y=[check.predicted_ms for check in checks],
        mode="markers",
        marker={"color": color, "symbol": symbol, "size": 8},
        name=name,
        text=[
            f"{escape(check.label)}<br>measured {milliseconds(check.measured_ms)} ms, predicted "
            f"{milliseconds(check.predicted_ms)} ms ({100 * (check.predicted_ms / check.measured_ms - 1):+.1f} %)"
            for check in checks
        ],
        hovertemplate="%{text}<extra></extra>",
    )
    trace.error_x = _error(
        [max(0.0, check.measured_ms - low) for check, (low, _) in zip(checks, ci, strict=True)],
        [max(0.0, high - check.measured_ms) for check, (_, high) in zip(checks, ci, strict=True)],
        color=color,
    )
    return trace


def _curve(x: Sequence[int], y: Sequence[float], name: str, *, color: str, dash: str, digits: str) -> go.Scatter:
    return go.Scatter(
        x=list(x),
        y=list(y),
        mode="lines" if len(x) > 1 else "markers",
        line={"color": color, "width": 2, "dash": dash},
        marker={"color": color},
        name=name,
        hovertemplate=f"epoch %{{x}}: %{{y:{digits}}}",
    )


# ---- layout ---------------------------------------------------------------------------------------------------------


def _figure(x: str, y: str, *, y_format: str = "") -> go.Figure:
    axis = {"gridcolor": "rgba(135,141,150,0.25)", "zeroline": False, "automargin": True, "linecolor": GREY}
    figure = go.Figure()
    figure.update_layout(
        template="none",
        margin={"l": 8, "r": 8, "t": 8, "b": 8},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, -apple-system, Segoe UI, Roboto, sans-serif", "size": 13},
        hovermode="closest",
        hoverlabel={"align": "left"},
        dragmode=False,  # a finger on the chart scrolls the page
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "bgcolor": "rgba(0,0,0,0)"},
        xaxis={**axis, "title": {"text": x, "standoff": 10}},
        yaxis={**axis, "title": {"text": y, "standoff": 10}, "tickformat": y_format},
    )
    return figure


def _accuracy_range(data: ReportData) -> list[float]:
    """From a little below what matters to a little above: a few collapsed candidates would flatten the front."""
    held = [a for p in data.front.points for a in (p.known_accuracy, p.accuracy_validation)]
    for point in data.front.points:
        held += interval(point, data.test_size) or ()
    if data.candidates is not None and len(data.candidates.accuracy):
        held.append(float(np.quantile(data.candidates.accuracy, 0.1)))
    low, high = min(held), max(held)
    margin = 0.06 * (high - low) or 0.01
    return [low - margin, high + margin]


def _error(minus: Sequence[float], plus: Sequence[float], *, color: str = _BLUE_FAINT) -> dict[str, object]:
    return {
        "type": "data",
        "symmetric": False,
        "array": list(plus),
        "arrayminus": list(minus),
        "thickness": 1,
        "width": 3,
        "color": color,
    }


def _hover(point: FrontPoint) -> str:
    """What a chart says of a point; plotly reads it as its own small HTML, so names are escaped."""
    known = "" if point.verified else "~"
    head = f"<b>{known}{milliseconds(point.known_latency_ms)} ms, {percent(point.known_accuracy)}</b>"
    return "<br>".join([head, *(escape(line) for line in gene_lines(point.genes))])
