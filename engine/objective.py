"""Named costs over populations, and bounds on them. Inside, everything is minimised."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

import numpy as np

from hwnas.engine.architecture import FloatArray, Gene, IntArray, options, to_architecture

Costs = Callable[[IntArray], FloatArray]  # canonical population (n, genes) -> (n,), minimised


class ObjectiveError(ValueError):
    """An objective that answers with something else than a number a row; the message names it."""


@dataclass(frozen=True, slots=True)
class Objective:
    """A named cost with its unit. `maximised` says that a person reads it as a gain (accuracy), turned as 1 - cost.

    A `cheap` one may be computed for any number of rows, as often as an algorithm likes; others only for rows that
    are asked. `deviations` are standard errors of the costs, where these are not exact.
    """

    name: str
    unit: str
    costs: Costs
    maximised: bool = False
    cheap: bool = False
    deviations: Costs | None = None

    def shown(self, costs: FloatArray) -> FloatArray:
        """The costs as a person reads them."""
        return 1 - costs if self.maximised else costs


def objective_of(
    name: str,
    function: Callable[..., Any],
    *,
    unit: str = "",
    maximised: bool = False,
    vectorised: bool = True,
    cheap: bool = False,
    genes: Sequence[Gene] | None = None,
    deviations: Costs | None = None,
) -> Objective:
    """The objective that a Python function computes; what it answers is checked.

    A vectorised function takes a population (n, genes) and answers n numbers. Any other takes one architecture, a
    tuple of option indices, and answers a number; with `genes` it takes option values by gene name instead. A
    `maximised` one answers with the gain, and is never negated by who writes it. Every use of the objective raises
    ObjectiveError for an exception, a wrong length, another type than numbers, NaN and infinities.

    >>> depth = objective_of("depth", lambda values: values["depth"], vectorised=False, genes=space.genes)
    """
    if vectorised and genes is not None:
        raise ValueError(f"objective {name!r}: a vectorised function takes option indices: leave genes out")
    named = None if genes is None else tuple(genes)
    checked = _Checked(name, function, vectorised=vectorised, maximised=maximised, genes=named)
    return Objective(name, unit, checked, maximised=maximised, cheap=cheap, deviations=deviations)


@dataclass(frozen=True, slots=True)
class _Checked:
    name: str
    function: Callable[..., Any]
    vectorised: bool
    maximised: bool
    genes: tuple[Gene, ...] | None

    def __call__(self, X: IntArray) -> FloatArray:
        answers = self._called(X.copy(), "these architectures") if self.vectorised else [self._one(row) for row in X]
        try:
            values = np.asarray(answers)
            if values.dtype.kind not in "bifu" and len(X):
                raise TypeError(values.dtype.name)
            values = values.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise ObjectiveError(
                f"objective {self.name!r} answered with {_short(answers)}, not with numbers ({error}): return a number "
                "an architecture"
            ) from error
        if values.shape != (len(X),):
            raise ObjectiveError(
                f"objective {self.name!r} answered with shape {values.shape} for {len(X)} architectures: return "
                f"{len(X)} numbers, shape ({len(X)},)"
            )
        wrong = np.flatnonzero(~np.isfinite(values))
        if len(wrong):
            raise ObjectiveError(
                f"objective {self.name!r} is {values[wrong[0]]} for {self._said(X[wrong[0]])}: return a finite number, "
                "and bar what has none by a limit"
            )
        return 1 - values if self.maximised else values

    def _one(self, row: IntArray) -> Any:
        architecture = to_architecture(row)
        return self._called(architecture if self.genes is None else options(self.genes, architecture), self._said(row))

    def _called(self, argument: Any, said: str) -> Any:
        try:
            return self.function(argument)
        except Exception as error:  # a user's function may raise anything
            raise ObjectiveError(f"objective {self.name!r} failed on {said}: {error!r}") from error

    def _said(self, row: IntArray) -> str:
        return str(list(to_architecture(row)))


def _short(answer: object) -> str:
    text = repr(answer)
    return text if len(text) <= 60 else f"{text[:57]}..."


# ---- names ----------------------------------------------------------------------------------------------------------

_NAME = re.compile(r"(?P<metric>[A-Za-z_]\w*)(@(?P<device>[A-Za-z0-9][A-Za-z0-9._-]*))?(:(?P<statistic>\w+))?")
_STATISTIC = re.compile(r"mean|p(?P<percentile>[5-9]\d)")


@dataclass(frozen=True, slots=True)
class Quantity:
    """What a name asks for: `accuracy`, `latency_ms`, `latency_ms@pi`, `latency_ms@pi:p99`.

    Without a device it is the one that a front is for. Without a percentile it is the typical figure, which for
    latency is the median run; so `:mean`, `:p50` and nothing mean the same typical run, whose prediction is a mean.
    """

    metric: str
    device: str | None = None
    percentile: int | None = None  # 51 to 99

    @classmethod
    def parse(cls, text: str) -> Quantity:
        """The quantity that `text` names. Raises ValueError with the form of a name."""
        found = _NAME.fullmatch(text)
        statistic = _STATISTIC.fullmatch(found["statistic"] or "mean") if found else None
        if found is None or statistic is None:
            raise ValueError(
                f"{text!r} names no quantity: write METRIC, METRIC@DEVICE or METRIC@DEVICE:p99 (mean, p50 to p99), "
                "for example latency_ms@host:p99"
            )
        percentile = int(statistic["percentile"] or 50)
        return cls(found["metric"], found["device"], percentile if percentile > 50 else None)

    def on(self, device: str) -> Quantity:
        """The same with its device named: `device` where it names none."""
        return self if self.device is not None else replace(self, device=device)

    def __str__(self) -> str:
        device = "" if self.device is None else f"@{self.device}"
        return f"{self.metric}{device}" + ("" if self.percentile is None else f":p{self.percentile}")


def fewest_runs(percentile: int) -> int:
    """Runs that a percentile is read from, at least: two of them lie beyond it."""
    return ceil(2 / (1 - percentile / 100) - 1e-9)


# ---- limits ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Constraint:
    """A hard upper limit on a cost."""

    name: str
    unit: str
    costs: Costs
    upper: float

    def __post_init__(self) -> None:
        if not np.isfinite(self.upper):
            raise ValueError(f"the limit on {self.name} is {self.upper}: give a finite number of {self.unit}")


def violation(constraints: Sequence[Constraint], X: IntArray) -> FloatArray:
    """Sum of the relative excesses over the limits, (n,); 0 where all hold."""
    total = np.zeros(len(X))
    for constraint in constraints:
        excess = constraint.costs(X) - constraint.upper
        total += np.maximum(excess, 0) / max(abs(constraint.upper), 1e-12)
    return total
