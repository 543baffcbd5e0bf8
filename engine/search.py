"""The search loop: ask, evaluate, tell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from traceback import extract_tb

import numpy as np

from hwnas.engine.algorithms import Algorithm
from hwnas.engine.architecture import Architecture, FloatArray, IntArray
from hwnas.engine.front import hypervolume, non_dominated
from hwnas.engine.journal import JournalError
from hwnas.engine.objective import Constraint, Objective, ObjectiveError, violation
from hwnas.engine.record import SearchRecord


class Infeasible(Exception):  # noqa: N818  # an answer, not a mistake
    """No architecture of the space keeps a limit, or limits at once; says which comes nearest."""

    def __init__(self, limit: Constraint, nearest: Architecture, value: float, shown: str, *, text: str = "") -> None:
        """`value` is that of `nearest`, described by `shown`; `text` tells it all where more than a limit is broken."""
        self.limit, self.nearest, self.value = limit, nearest, value
        super().__init__(
            text
            or f"no subnet keeps {limit.name} <= {limit.upper:g} {limit.unit}: the lowest is {value:.4g} {limit.unit}, "
            f"by {shown}: raise the limit or widen the space"
        )


@dataclass(frozen=True, slots=True)
class Evaluated:
    """Every candidate of a search, in order."""

    X: IntArray  # (n, genes), canonical, no row twice
    costs: FloatArray  # (n, objectives), minimised; NaN where the candidate breaks a limit
    violation: FloatArray  # (n,), 0 where every limit holds

    def __len__(self) -> int:
        return len(self.X)

    @property
    def feasible(self) -> Evaluated:
        """The candidates that keep every limit."""
        kept = self.violation <= 0
        return Evaluated(self.X[kept], self.costs[kept], self.violation[kept])

    def layers(self) -> list[IntArray]:
        """Indices of the feasible candidates, front by front, each sorted by the last objective."""
        left = np.flatnonzero(self.violation <= 0)
        found = []
        while len(left):
            best = non_dominated(self.costs[left])
            front = left[best]
            found.append(front[np.lexsort(self.costs[front].T)])
            left = left[~best]
        return found


class _Told:
    """All that was told so far, in arrays that double: joining them anew each round would cost the square of it."""

    def __init__(self, objectives: int) -> None:
        self._objectives, self._count = objectives, 0
        self._arrays: tuple[IntArray, FloatArray, FloatArray] | None = None

    def __len__(self) -> int:
        return self._count

    def add(self, X: IntArray, costs: FloatArray, violation: FloatArray) -> None:
        stop = self._count + len(X)
        if self._arrays is None or stop > len(self._arrays[0]):
            before, self._arrays = self._arrays, self._room(2 * stop, X.shape[1])
            if before is not None:
                for new, old in zip(self._arrays, before, strict=True):
                    new[: self._count] = old[: self._count]
        for array, rows in zip(self._arrays, (X, costs, violation), strict=True):
            array[self._count : stop] = rows
        self._count = stop

    def evaluated(self) -> Evaluated:
        """Views, which later rows do not change."""
        X, costs, violation = self._room(0, 0) if self._arrays is None else self._arrays
        return Evaluated(X[: self._count], costs[: self._count], violation[: self._count])

    def _room(self, n: int, genes: int) -> tuple[IntArray, FloatArray, FloatArray]:
        return np.empty((n, genes), dtype=np.int64), np.empty((n, self._objectives)), np.empty(n)


def search(
    algorithm: Algorithm,
    objectives: Sequence[Objective],
    *,
    evaluations: int,
    constraints: Sequence[Constraint] = (),
    on_told: Callable[[Evaluated], None] | None = None,
    record: SearchRecord | None = None,
    earlier: IntArray | None = None,
) -> Evaluated:
    """Run `algorithm` for that many candidates, or until the space is used up.

    Objectives are not computed for candidates that break a limit: limits are cheap, accuracy is not. With a `record`
    every ask, outcome and tell is kept: a search that was interrupted, at any moment and by anything, goes on when
    it is run again and ends as it would have ended; run in several processes at once, it is evaluated by all of them
    together, and each ends with the same. Rows in `earlier` (n, genes), of an earlier search whose costs are known,
    are told before anything is asked and do not count as evaluations.

    Raises ObjectiveError where an objective answers with something else than finite numbers; what was evaluated is
    kept, and the same search goes on once the objective is mended. Raises JournalError for a record that cannot be
    written or is not of this search.
    """
    told = _Told(len(objectives))
    before = np.zeros((0, 0), dtype=np.int64) if earlier is None else earlier
    cheap = all(objective.cheap for objective in objectives)

    def tell(number: int, X: IntArray) -> None:
        broken = violation(constraints, X)
        if record is None:
            costs = np.full((len(X), len(objectives)), np.nan)
            if (broken <= 0).any():
                costs[broken <= 0] = costs_of(objectives, X[broken <= 0])
        else:
            costs, broken = record.settle(number, X, broken, partial(costs_of, objectives), cheap=cheap)
            if record.resumed and number == 1:
                _refuse_changed(objectives, X[broken <= 0], costs[broken <= 0])
        algorithm.tell(X, costs, broken)
        told.add(X, costs, broken)
        if on_told is not None:
            on_told(told.evaluated())

    with record or nullcontext():
        if record is not None:
            before = record.earlier(before)
        if len(before):
            tell(0, before)
        for number in count(1):
            left = len(before) + evaluations - len(told)
            asked = algorithm.ask()[:left] if left > 0 else before[:0]
            if len(asked) == 0:
                break
            tell(number, asked)
    return told.evaluated()


def costs_of(objectives: Sequence[Objective], X: IntArray) -> FloatArray:
    """What the objectives say of these rows, (n, objectives), each checked. Raises ObjectiveError."""
    return np.stack([_checked(objective, X) for objective in objectives], axis=1)


def _checked(objective: Objective, X: IntArray) -> FloatArray:
    rows = f"{len(X)} architectures, the first {X[0].tolist()}" if len(X) > 1 else str(X[0].tolist())
    try:
        found = np.asarray(objective.costs(X))
    except Exception as error:  # a user's objective may raise anything
        if type(error).__module__.startswith("hwnas."):
            raise  # says what is wrong and how to mend it
        last = extract_tb(error.__traceback__)[-1]
        where = f"{type(error).__name__}: {error}, {Path(last.filename).name} line {last.lineno}"
        raise ObjectiveError(f"objective {objective.name!r} failed on {rows} ({where}): {_CURE}") from error
    if found.dtype.kind not in "bifu":
        said = str(found).replace("\n", " ")[:60]
        raise ObjectiveError(f"objective {objective.name!r} answered {said!r} for {rows}, no numbers: {_CURE}")
    if found.shape != (len(X),):
        raise ObjectiveError(
            f"objective {objective.name!r} answered with shape {found.shape} for {rows}: "
            f"it must be ({len(X)},), one cost a row; {_CURE}"
        )
    wrong = np.flatnonzero(~np.isfinite(found))
    if len(wrong):
        raise ObjectiveError(
            f"objective {objective.name!r} is {found[wrong[0]]} for {X[wrong[0]].tolist()}, no finite number: "
            f"keep such architectures out by a limit, or {_CURE}"
        )
    return found.astype(np.float64)


_CURE = "correct it and run the same search again"


def _refuse_changed(objectives: Sequence[Objective], X: IntArray, costs: FloatArray) -> None:
    """Raises JournalError where a cheap objective has changed since the search was recorded."""
    for column, objective in enumerate(objectives):
        if objective.cheap and len(X):
            found, recorded = _checked(objective, X), costs[:, column]
            # a batch of another size may round differently
            changed = np.flatnonzero(~np.isclose(found, recorded, rtol=1e-6, atol=1e-12))
            if len(changed):
                first = changed[0]
                raise JournalError(
                    f"objective {objective.name!r} of {X[first].tolist()} was {recorded[first]:g} {objective.unit} "
                    f"when the search began and is {found[first]:g} now: name what it depends on in the search's "
                    "context, or search with another seed (nothing was changed)"
                )


@dataclass(frozen=True, slots=True)
class Trace:
    """How the hypervolume grew, as a share of what all candidates reach together."""

    evaluations: tuple[int, ...]
    share: tuple[float, ...]
    reference: tuple[float, ...]  # costs, in the order of the objectives


def hypervolume_trace(evaluated: Evaluated, *, points: int = 60) -> Trace:
    """The trace at up to `points` places.

    The reference lies a tenth of the range behind the worst feasible cost of each objective, so that every
    candidate but the worst counts. Raises ValueError where nothing is feasible.
    """
    feasible = evaluated.violation <= 0
    if not feasible.any():
        raise ValueError("no candidate keeps the limits: there is no hypervolume to trace")
    seen = np.unique(np.linspace(1, len(evaluated), min(points, len(evaluated))).astype(np.int64))
    worst, best = evaluated.costs[feasible].max(0), evaluated.costs[feasible].min(0)
    reference = (worst + 0.1 * np.maximum(worst - best, 1e-12)).tolist()
    reached = np.array([hypervolume(evaluated.costs[:n][feasible[:n]], reference) for n in seen])
    share = reached / max(reached[-1], 1e-300)
    return Trace(tuple(seen.tolist()), tuple(share.tolist()), tuple(reference))
