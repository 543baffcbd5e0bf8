"""Figures and architectures as a person reads them."""

from __future__ import annotations

from collections.abc import Mapping
from math import floor, log10

from scipy.stats import binomtest

from hwnas.engine.front import Front, FrontPoint
from hwnas.engine.report.data import ReportData
from hwnas.latency.block import Value


def milliseconds(value: float) -> str:
    """Three significant digits, never an exponent: `0.0312`, `1.24`, `153`."""
    decimals = 0 if value <= 0 else max(0, 2 - floor(log10(value)))
    return f"{value:.{decimals}f}"


def percent(share: float, digits: int = 1) -> str:
    """A share from 0 to 1 as per cent."""
    return f"{100 * share:.{digits}f} %"


def large(number: int) -> str:
    """A count with its prefix: `1.24 M`."""
    for limit, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= limit:
            return f"{number / limit:.3g} {prefix}"
    return str(number)


def plural(number: int, noun: str) -> str:
    """`1 point`, `2 points`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def accuracy_interval(accuracy: float, images: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of `images` (Wilson, JASA 22, 1927)."""
    found = binomtest(round(accuracy * images), images).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


def interval(point: FrontPoint, test_size: int | None) -> tuple[float, float] | None:
    """Of the accuracy that the front compares, where it is a test accuracy over a known number of images."""
    if test_size is None or not point.verified or point.accuracy_test is None:
        return None
    return accuracy_interval(point.accuracy_test, test_size)


def short(genes: Mapping[str, Value]) -> str:
    """The genes on one line, names by their first letter: `r24 s1:d3,w24,k335,e446`."""
    parts = []
    for group, leaves in _grouped(genes).items():
        said = ",".join(
            leaf[:1] + ("" if all(len(value) == 1 for value in values) else ".").join(values)
            for leaf, values in leaves.items()
        )
        parts.append(f"{group}:{said}" if group else said)
    return " ".join(parts)


def gene_lines(genes: Mapping[str, Value]) -> tuple[str, ...]:
    """The genes by the first part of their names, values of like genes side by side.

    `s1.b1.kernel` 3 and `s1.b2.kernel` 5 give the line `s1: kernel 3 5`.
    """
    return tuple(
        (f"{group}: " if group else "") + ", ".join(f"{leaf} {' '.join(values)}" for leaf, values in leaves.items())
        for group, leaves in _grouped(genes).items()
    )


def _grouped(genes: Mapping[str, Value]) -> dict[str, dict[str, list[str]]]:
    """Values by the first and the last part of their genes' names."""
    groups: dict[str, dict[str, list[str]]] = {}
    for name, value in genes.items():
        first, _, rest = name.partition(".")
        group, leaf = (first, rest.rpartition(".")[2]) if rest else ("", first)
        said = f"{value:g}" if isinstance(value, float) else str(value)
        groups.setdefault(group, {}).setdefault(leaf, []).append(said)
    return groups


def ties(front: Front) -> str:
    """Which points of a verified front only noise tells apart; nothing where it tells all apart."""
    if not front.tied:
        return ""
    pairs = ", ".join(f"{i} and {j}" for i, j in front.tied)
    return f"told apart by noise alone: {pairs}"


def prediction_error(point: FrontPoint) -> str:
    """How far the predicted latency was off, or how uncertain it says it is."""
    if point.verified and point.known_latency_ms > 0:
        return f"{100 * (point.latency_predicted_ms / point.known_latency_ms - 1):+.1f} %"
    return f"± {percent(point.latency_std_ms / (point.latency_predicted_ms or 1))}"


def summary(data: ReportData) -> str:
    """The result in two plain sentences: the front, and how far to trust the latencies."""
    return f"{_front_sentence(data)} {_trust_sentence(data)}"


def modelled_mark(data: ReportData) -> str:
    """What a report of a modelled device says before anything else; nothing for a device that was measured."""
    if not data.modelled:
        return ""
    found = data.fingerprint
    who = data.device or "the device"
    by = f" ({found.soc}; {found.runtime})" if found is not None else ""
    return (
        f"Modelled, not measured: {who} is a model{by}. No device ran these networks; where this page says measured, "
        "it means that the model was asked about the whole network."
    )


def _front_sentence(data: ReportData) -> str:
    points = data.front.points
    if not points:
        return "The search found no point for the front."
    where = f" for {data.device}" if data.device else ""
    if points[0].verified:
        how = "modelled and not measured" if data.modelled else "measured there"
    else:
        how = "with latencies that are predicted and not yet " + ("modelled whole" if data.modelled else "measured")
    best = max(points, key=lambda point: (point.known_accuracy, -point.known_latency_ms))
    of_images = "test images" if best.verified and best.accuracy_test is not None else "validation images"
    labels = (
        f"labels {percent(best.known_accuracy)} of the {of_images} right in {milliseconds(best.known_latency_ms)} ms"
    )
    if len(points) == 1:
        return f"The search left one network{where}, {how}: it {labels}."
    fastest = min(points, key=lambda point: point.known_latency_ms)
    bend = data.front.knee()
    past = (
        ""
        if bend in (best, fastest)
        else (
            f", and past the knee at {milliseconds(bend.known_latency_ms)} ms and {percent(bend.known_accuracy)} "
            "more accuracy gets dear"
        )
    )
    return (
        f"The search left {len(points)} networks{where}, {how}: the most accurate {labels}, the "
        f"fastest {percent(fastest.known_accuracy)} in {milliseconds(fastest.known_latency_ms)} ms{past}."
    )


def _trust_sentence(data: ReportData) -> str:
    quality = data.quality
    if quality is None:
        return "How wrong the predicted latencies are is not known: no check networks were measured."
    said = f"Predicted latencies were wrong by {percent(quality.mape)} on average over {plural(quality.n, 'network')}"
    if data.modelled:
        return said + ", against what the model says of them whole: how far the model is from a chip is not known."
    if quality.noise_floor is None:
        return said + "; the noise of the device itself was not measured."
    return said + f", where the device itself repeats a figure to within {percent(quality.noise_floor)}."


def quality_line(data: ReportData) -> str:
    """The figures of the predictor, for the title of its chart."""
    quality = data.quality
    if quality is None:
        return "No check networks were measured, so the error of the predictor is not known."
    parts = [
        f"MAPE {percent(quality.mape)} (95 % interval {percent(quality.mape_low)} to {percent(quality.mape_high)}, "
        f"{plural(quality.n, 'network')})",
        "Kendall's tau " + ("unknown" if quality.kendall is None else f"{quality.kendall:.2f}"),
        f"bias {100 * quality.bias:+.1f} %",
        f"{percent(quality.within_10_percent, 0)} within 10 %",
        "noise floor " + ("not measured" if quality.noise_floor is None else percent(quality.noise_floor)),
    ]
    if data.modelled:  # it has no noise
        parts[-1] = "against a model, not a device"
    return ", ".join(parts)
