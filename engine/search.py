"""The search loop: ask, evaluate, tell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hwnas.engine.algorithms import Algorithm
from hwnas.engine.architecture import Architecture, FloatArray, IntArray
from hwnas.engine.front import hypervolume, non_dominated
from hwnas.engine.objective import Constraint, Objective, violation


class Infeasible(Exception):  # noqa: N818  # an answer, not a mistake
    """No architecture of the space keeps a limit; says which comes nearest."""

    def __init__(self, limit: Constraint, nearest: Architecture, value: float, shown: str) -> None:
        self.limit, self.nearest, self.value = limit, nearest, value
        super().__init__(
            f"no subnet keeps {limit.name} <= {limit.upper:g} {limit.unit}: the lowest is {value:.4g} {limit.unit}, "
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


def search(
    algorithm: Algorithm,
    objectives: Sequence[Objective],
    *,
    evaluations: int,
    constraints: Sequence[Constraint] = (),
    on_told: Callable[[Evaluated], None] | None = None,
) -> Evaluated:
    """Run `algorithm` for that many candidates, or until the space is used up.

    Objectives are not computed for candidates that break a limit: limits are cheap, accuracy is not. With a seeded
    algorithm and journalled objectives, an interrupted search is resumed by running it again: what is known is
    read, in the same order, and the rest is computed.
    """
    X, costs, violations = [], [], []
    count = 0
    while count < evaluations:
        asked = algorithm.ask()[: evaluations - count]
        if len(asked) == 0:
            break
        broken = violation(constraints, asked)
        values = np.full((len(asked), len(objectives)), np.nan)
        keeps = broken <= 0
        if keeps.any():
            values[keeps] = np.stack([objective.costs(asked[keeps]) for objective in objectives], axis=1)
        algorithm.tell(asked, values, broken)
        X.append(asked)
        costs.append(values)
        violations.append(broken)
        count += len(asked)
        if on_told is not None:
            on_told(Evaluated(np.concatenate(X), np.concatenate(costs), np.concatenate(violations)))
    if not X:
        return Evaluated(np.zeros((0, 0), dtype=np.int64), np.zeros((0, len(objectives))), np.zeros(0))
    return Evaluated(np.concatenate(X), np.concatenate(costs), np.concatenate(violations))


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
