"""What measuring says of a point: whether it keeps the limits, and which points only noise tells apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf

import numpy as np
from scipy.stats import binom, norm
from scipy.stats import t as student

from hwnas.devices import Measurement, Protocol
from hwnas.engine.architecture import Architecture, BoolArray, FloatArray
from hwnas.engine.device_costs import steady_percentile_ms
from hwnas.engine.front import Front, FrontPoint
from hwnas.engine.hardware import Visit
from hwnas.engine.noise import independent, sure_front, tied
from hwnas.engine.objective import Quantity

# Runs beyond a percentile that is checked against a limit: fewer leave its interval to the one slowest run.
_BEYOND = 5


@dataclass(frozen=True, slots=True)
class Reading:
    """A measured figure, at the speed that the device had for its table, with the error of measuring it once more."""

    value: float
    relative_error: float = 0.0
    degrees: float = inf  # of freedom behind the error

    def upper(self, confidence: float) -> float:
        """What another measurement stays below with this confidence."""
        return self.value * (1 + float(student.ppf(confidence, self.degrees)) * self.relative_error)


def long_enough(protocol: Protocol, quantities: Sequence[Quantity]) -> Protocol:
    """The protocol with as many rounds as the farthest of the percentiles needs."""
    farthest = max((q.percentile for q in quantities if q.percentile is not None), default=50)
    runs = _BEYOND / (1 - farthest / 100) if farthest > 50 else 0.0
    return replace(protocol, rounds=max(protocol.rounds, int(np.ceil(runs / protocol.repeats - 1e-9))))


def reading(quantity: Quantity, point: FrontPoint, measurement: Measurement, visit: Visit) -> Reading | None:
    """What the measurement says of a quantity on its device; None for what no measurement tells.

    A latency is divided by the device's speed in this visit, as its table's networks show it: clocks come and go, and
    the limit is on the device as its table knows it. Its error has two parts: that of the percentile within the visit,
    and what figures do from visit to visit. Runs of a round resemble each other, which the first part does not know.
    """
    if quantity.metric == "latency_ms":
        q = 50 if quantity.percentile is None else quantity.percentile
        value = steady_percentile_ms(measurement, q)
        between, degrees = visit.spread(quantity.percentile)
        return Reading(value / (visit.speed or 1.0), float(np.hypot(_within(measurement, q), between)), degrees)
    if quantity.metric == "energy_mj" and measurement.energy_mj is not None:
        return Reading(measurement.energy_mj)
    if quantity.metric == "peak_memory_mib" and point.weight_bytes is not None and point.peak_memory_bytes is not None:
        return Reading((point.weight_bytes + point.peak_memory_bytes) / 2**20)
    return None


def _within(measurement: Measurement, q: float) -> float:
    """Relative standard error of a percentile of the steady runs, from the order statistic one of them above it.

    The number of runs below the percentile is Binomial(n, q) (Conover, Practical Nonparametric Statistics, 1999,
    section 3.2). 0 for a single run: a model answers once.
    """
    runs = np.sort(measurement.steady_ms)
    if len(runs) == 1:
        return 0.0
    above = min(len(runs) - 1, int(binom.ppf(norm.cdf(1), len(runs), q / 100)))
    return float(max(0.0, runs[above] / np.percentile(runs, q) - 1))


@dataclass(frozen=True, slots=True)
class Answers:
    """What verified points are known by, beside their figures."""

    right: Mapping[Architecture, BoolArray]  # of each test image, whether it is labelled right, (images,)
    measurements: Mapping[Architecture, Measurement]
    between: float = 0.0  # relative standard deviation of a latency from visit to visit


def judged(front: Front, answers: Answers, *, confidence: float, other_images: bool) -> Front:
    """The front without points that only the noise of measuring put there, and with what is tied in its provenance.

    Accuracies are compared on the test images as they are, since all networks saw the same; with `other_images` a
    difference has to be larger than another draw of images would make it. `tied` in the provenance lists pairs of
    points by their places, counted from 1, that no objective tells apart beyond the noise, that of images included.
    """
    points = front.points
    if len(points) < 2:
        return Front(points, front.dominated, {**front.provenance, "tied": [], "confidence_of_front": confidence})
    seen = _differences(front, points, answers, images=other_images)
    stays = sure_front(front.costs, seen, confidence=confidence)
    kept = tuple(point for point, stay in zip(points, stays, strict=True) if stay)
    out = tuple(point for point, stay in zip(points, stays, strict=True) if not stay)
    rest = tuple(sorted([*front.dominated, *out], key=lambda point: (*point.costs, point.architecture)))
    found = Front(kept, rest, front.provenance)
    pairs = tied(found.costs, _differences(found, kept, answers, images=True), confidence=confidence)
    ties = [[int(i) + 1, int(j) + 1] for i, j in np.argwhere(np.triu(pairs))]
    return Front(kept, rest, {**front.provenance, "tied": ties, "confidence_of_front": confidence})


def _differences(front: Front, points: Sequence[FrontPoint], answers: Answers, *, images: bool) -> FloatArray:
    """Standard errors of all differences of costs, (n, n, objectives); 0 for what is known exactly."""
    errors = np.zeros((len(points), len(front.objectives)))
    for column, name in enumerate(front.objectives):
        quantity = Quantity.parse(name)
        if quantity.metric == "latency_ms":
            # two figures differ by as much from visit to visit as one does times the root of two
            within = [_within(answers.measurements[p.architecture], quantity.percentile or 50) for p in points]
            relative = np.hypot(within, answers.between / np.sqrt(2))
            errors[:, column] = relative * [point.value(name) for point in points]
    found = independent(errors)
    if images and "accuracy" in front.objectives:
        found[:, :, front.objectives.index("accuracy")] = paired_error([answers.right[p.architecture] for p in points])
    return found


def paired_error(right: Sequence[BoolArray]) -> FloatArray:
    """Standard errors of the differences between accuracies on the same images, (n, n).

    Only images that one network of a pair labels right and the other wrong count (McNemar, Psychometrika 12, 1947);
    one is added, as no disagreement among few images is no proof of none.
    """
    table = np.stack(right).astype(np.float64)  # (n, images)
    agree = table @ table.T + (1 - table) @ (1 - table).T
    images = table.shape[1]
    gain = (table.sum(1)[:, None] - table.sum(1)[None]) / images
    disagree = (images - agree + 1) / images
    return np.asarray(np.sqrt(np.maximum(disagree - gain**2, 0) / images), dtype=np.float64)
