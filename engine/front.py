"""Non-dominated candidates with their evidence: hypervolume, knee, choice under a limit, files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import moocore
import numpy as np
import pandas as pd
from pydantic import TypeAdapter, ValidationError

from hwnas.engine.architecture import Architecture, BoolArray, FloatArray
from hwnas.latency.block import Value

# ---- costs ----------------------------------------------------------------------------------------------------------


def non_dominated(costs: FloatArray) -> BoolArray:
    """Which rows of (n, objectives), all minimised, no other row beats; equal rows do not beat each other. (n,)."""
    return np.asarray(moocore.is_nondominated(costs, keep_weakly=True), dtype=bool)


def hypervolume(costs: FloatArray, reference: Sequence[float]) -> float:
    """Volume between the rows and the reference; a row that is not better than it in every objective adds nothing."""
    inside = costs[(costs < np.asarray(reference)).all(axis=1)]
    return float(moocore.hypervolume(inside, ref=reference)) if len(inside) else 0.0


def normalised_hypervolume(costs: FloatArray, *, ideal: Sequence[float], reference: Sequence[float]) -> float:
    """Share of the box from `ideal` to `reference` that the rows dominate, 0 to 1. Raises ValueError."""
    sides = np.asarray(reference, dtype=np.float64) - np.asarray(ideal)
    if (sides <= 0).any():
        raise ValueError(f"the ideal {tuple(ideal)} must be below the reference {tuple(reference)} in every objective")
    return hypervolume(np.maximum(costs, ideal), reference) / float(np.prod(sides))


def knee(costs: FloatArray) -> int:
    """Index of the row farthest below the plane through the best rows of each objective, the front scaled to 0..1.

    Das, "On characterizing the 'knee' of the Pareto curve", Structural Optimization 18, 1999. Where these rows span
    no plane that faces the ideal (three objectives and more), the plane through the unit points stands in.
    Raises ValueError for no rows.
    """
    if len(costs) == 0:
        raise ValueError("no rows, no knee")
    front = np.flatnonzero(non_dominated(costs))
    low, high = costs[front].min(0), costs[front].max(0)
    scaled = (costs[front] - low) / np.where(high > low, high - low, 1.0)
    normal = np.ones(costs.shape[1])
    best = scaled[scaled.argmin(0)]
    if np.linalg.matrix_rank(best) == len(normal):
        plane = np.linalg.solve(best, normal)  # z on the plane <=> z @ plane == 1
        normal = plane if (plane > 0).all() else normal
    return int(front[(scaled @ normal).argmin()])


# ---- points ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontPoint:
    """One candidate: what was predicted for it and, once verified, what was measured."""

    architecture: Architecture
    genes: Mapping[str, Value]  # options by name of the genes that are on
    accuracy_validation: float
    accuracy_test: float | None = None
    latency_predicted_ms: float
    latency_std_ms: float  # of the prediction
    latency_ms: float | None = None  # measured median
    latency_ci_ms: tuple[float, float] | None = None  # of the median
    latency_p99_ms: float | None = None
    macs: int
    params: int
    weight_bytes: int | None = None
    peak_memory_bytes: int | None = None  # of activations, inputs and outputs in the compiled network
    energy_mj: float | None = None  # of one run, where a counter or a model says so
    figures: Mapping[str, float] = field(default_factory=dict)  # what else is weighed or limited, by name
    verified: bool = False

    def __post_init__(self) -> None:
        if self.verified and self.latency_ms is None:
            raise ValueError(f"{self.architecture} is marked as verified and has no measured latency_ms")
        for name in ("accuracy_validation", "accuracy_test"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{self.architecture}: {name} is {value}, it is a share from 0 to 1")
        for name in ("latency_predicted_ms", "latency_std_ms", "latency_ms", "latency_p99_ms"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < float("inf"):
                raise ValueError(f"{self.architecture}: {name} is {value}, give milliseconds")

    @property
    def known_latency_ms(self) -> float:
        """The measured median of a verified point, the prediction of any other."""
        return self.latency_ms if self.verified and self.latency_ms is not None else self.latency_predicted_ms

    @property
    def known_accuracy(self) -> float:
        """Test accuracy of a verified point, validation accuracy of any other."""
        return self.accuracy_test if self.verified and self.accuracy_test is not None else self.accuracy_validation

    @property
    def costs(self) -> tuple[float, float]:
        """What most fronts compare: latency in ms and 1 - accuracy."""
        return self.known_latency_ms, 1 - self.known_accuracy

    def value(self, objective: str) -> float:
        """What is known of an objective, measured before predicted. Raises LookupError."""
        if objective in self.figures:
            return self.figures[objective]
        known = {"accuracy": "known_accuracy", "latency_ms": "known_latency_ms", "macs": "macs", "params": "params"}
        if objective not in known:
            raise LookupError(f"{self.architecture} has no figure for {objective!r} (known: {', '.join(self.figures)})")
        return float(getattr(self, known[objective]))

    def to_json(self) -> dict[str, Any]:
        """Plain values; `architecture` is what a person reads, `indices` what a program does."""
        data = asdict(self)
        indices = list(data.pop("architecture"))
        ci = data.pop("latency_ci_ms")
        return {
            "architecture": dict(data.pop("genes")),
            "indices": indices,
            **data,
            "figures": dict(self.figures),
            "latency_ci_ms": None if ci is None else list(ci),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> FrontPoint:
        """The point that `to_json` wrote. Raises ValueError with one line."""
        named = {"indices": "architecture", "architecture": "genes"}
        unknown = sorted(set(data) - {field.name for field in fields(cls)} - {"indices"} | set(data) & {"genes"})
        if unknown:
            raise ValueError(f"a point has an unknown field {unknown[0]!r}")
        try:
            return _POINT.validate_python({named.get(key, key): value for key, value in data.items()})
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise ValueError(f"a point's {where or 'values'}: {first['msg']}") from None


_POINT = TypeAdapter(FrontPoint)

# ---- fronts ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Front:
    """Points that no other beats, by latency, with those that were beaten or not verified, and where they come from."""

    points: tuple[FrontPoint, ...]
    dominated: tuple[FrontPoint, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        taken = sorted({"points", "dominated"} & set(self.provenance))
        if taken:
            raise ValueError(f"provenance may not be called {taken[0]!r}: a front's file uses that key")

    @classmethod
    def of(cls, points: Iterable[FrontPoint], *, provenance: Mapping[str, Any] | None = None) -> Front:
        """The front of these points. Once one is verified, only verified ones can be on it.

        Predictions and measurements never meet in one comparison. Of points with the same architecture a verified
        one stays, then the later.
        """
        latest: dict[Architecture, FrontPoint] = {}
        for point in points:
            if point.verified or not (point.architecture in latest and latest[point.architecture].verified):
                latest[point.architecture] = point
        ordered = sorted(latest.values(), key=lambda point: (*point.costs, point.architecture))
        verified = any(point.verified for point in ordered)
        candidates = [point for point in ordered if point.verified == verified]
        weighed = cls(tuple(candidates), (), dict(provenance or {}))
        best = non_dominated(weighed.costs).tolist() if candidates else []
        front = tuple(point for point, is_best in zip(candidates, best, strict=True) if is_best)
        held = {point.architecture for point in front}
        rest = tuple(point for point in ordered if point.architecture not in held)
        return cls(front, rest, weighed.provenance)

    @property
    def modelled(self) -> bool:
        """Whether the latencies, measured ones included, come from a model of a device instead of a device."""
        fingerprint = self.provenance.get("fingerprint")
        said = fingerprint.get("modelled") if isinstance(fingerprint, Mapping) else None
        return bool(said or self.provenance.get("modelled"))

    @property
    def objectives(self) -> tuple[str, ...]:
        """What the points are compared by, as the provenance says; latency and accuracy where it says nothing."""
        return tuple(self.provenance.get("objectives") or ("latency_ms", "accuracy"))

    @property
    def tied(self) -> tuple[tuple[int, int], ...]:
        """Pairs of places, counted from 1, of points that only noise tells apart, where verification said so."""
        return tuple((int(i), int(j)) for i, j in self.provenance.get("tied", ()))

    @property
    def costs(self) -> FloatArray:
        """Each objective of each point, minimised, (n, objectives): latency in ms and 1 - accuracy of most fronts."""
        gains = self.provenance.get("maximised") or ("accuracy",)
        rows = [
            [1 - point.value(name) if name in gains else point.value(name) for name in self.objectives]
            for point in self.points
        ]
        return np.array(rows, dtype=np.float64).reshape(len(rows), len(self.objectives))

    def hypervolume(self, *, latency_ms: float, accuracy: float) -> float:
        """Area dominated up to a reference latency and accuracy, in ms."""
        costs = np.array([point.costs for point in self.points], dtype=np.float64).reshape(-1, 2)
        return hypervolume(costs, (latency_ms, 1 - accuracy))

    def knee(self) -> FrontPoint:
        """The point after which accuracy gets dear. Raises LookupError for an empty front."""
        if not self.points:
            raise LookupError("the front is empty: it has no knee")
        return self.points[knee(self.costs)]

    def pick(self, *, max_latency_ms: float | None = None, min_accuracy: float | None = None) -> FrontPoint:
        """The most accurate point within the latency; without such a limit, the fastest that is accurate enough.

        Raises LookupError that names the limit and the nearest point.
        """
        if max_latency_ms is None and min_accuracy is None:
            raise ValueError("give max_latency_ms, min_accuracy or both; knee() needs neither")
        if not self.points:
            raise LookupError("the front is empty: there is nothing to pick")
        fast = [p for p in self.points if max_latency_ms is None or p.known_latency_ms <= max_latency_ms]
        if not fast:
            nearest = min(self.points, key=lambda p: p.known_latency_ms)
            raise LookupError(f"no point within {max_latency_ms} ms: the fastest is {self._shown(nearest)}")
        good = [p for p in fast if min_accuracy is None or p.known_accuracy >= min_accuracy]
        if not good:
            nearest = max(fast, key=lambda p: p.known_accuracy)
            limit = "" if max_latency_ms is None else f" within {max_latency_ms} ms"
            raise LookupError(
                f"no point of accuracy {min_accuracy}{limit}: the most accurate is {self._shown(nearest)}"
            )
        if max_latency_ms is None:
            return min(good, key=lambda p: p.costs)
        return min(good, key=lambda p: p.costs[::-1])

    def _shown(self, point: FrontPoint) -> str:
        how = "predicted" if not point.verified else "modelled" if self.modelled else "measured"
        return f"{point.known_latency_ms:.4g} ms at accuracy {point.known_accuracy:.4g} ({how})"

    def to_json(self) -> dict[str, Any]:
        """Plain values: points, dominated, and the provenance beside them."""
        return {
            **self.provenance,
            "points": [point.to_json() for point in self.points],
            "dominated": [point.to_json() for point in self.dominated],
        }

    def to_frame(self) -> pd.DataFrame:
        """A row a point and a column a field, a gene (`gene.NAME`, empty where it is off) and a figure."""
        rows = []
        for point in self.points:
            row = point.to_json()
            low, high = point.latency_ci_ms or (None, None)
            genes = {f"gene.{name}": value for name, value in row.pop("architecture").items()}
            genes |= {f"figure.{name}": value for name, value in row.pop("figures").items()}
            indices = " ".join(map(str, row.pop("indices")))
            del row["latency_ci_ms"]
            rows.append({**row, "latency_ci_low_ms": low, "latency_ci_high_ms": high, "indices": indices, **genes})
        return pd.DataFrame(rows)

    def write(self, path: Path) -> None:
        """Write JSON, or CSV for a name that ends so. A reader sees the old file or the new one, never half of one."""
        if path.suffix.lower() == ".csv":
            _replace(path, self.to_frame().to_csv(index=False))
        else:
            _replace(path, json.dumps(self.to_json(), indent=1, allow_nan=False) + "\n")

    @classmethod
    def read(cls, path: Path) -> Front:
        """The front that `write` put there as JSON. Raises ValueError that names the file and the cure."""
        cure = "write it again with `hwnas search` or give another file"
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is not JSON, or not all of it ({error}): {cure}") from None
        if not isinstance(data, dict) or not all(_is_points(data.get(key)) for key in ("points", "dominated")):
            raise ValueError(f"{path} is JSON but not a front: it needs lists of points and dominated; {cure}")
        try:
            points, dominated = (tuple(map(FrontPoint.from_json, data.pop(key))) for key in ("points", "dominated"))
        except ValueError as error:
            raise ValueError(f"{path}: {error}; {cure}") from None
        return cls(points, dominated, data)


def _is_points(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())  # a rename may reach the disk before what it names
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
