"""The first rows of a search that learns: extremes, the most capacity for a cost, and rows far from each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from scipy.spatial.distance import cdist

from hwnas.engine.additive import AdditiveCost
from hwnas.engine.algorithms.nsga2 import Nsga2
from hwnas.engine.architecture import FloatArray, IntArray
from hwnas.engine.exact import exact_front
from hwnas.engine.front import non_dominated
from hwnas.engine.genome import Genome
from hwnas.engine.objective import Costs
from hwnas.engine.rankers._description import Description

POPULATION, GENERATIONS = 100, 20  # of a search on costs that are computed
EPSILON, LABELS = 0.01, 200_000  # a dozen rows of a front need no more of its points, and no minutes


def extremes(costs: Sequence[AdditiveCost]) -> list[IntArray]:
    """The architectures with the least and the most of each cost, exactly."""
    rows = []
    for cost in costs:
        rows += [np.array(cost.minimum()[0]), np.array(_negated(cost).minimum()[0])]
    return rows


def most_capable(capacity: AdditiveCost, costs: Sequence[AdditiveCost], violation: Costs, n: int) -> IntArray:
    """Up to `n` feasible rows with the most capacity for one of the other costs, evenly along each exact front.

    None of a cost whose front needs more than `LABELS` partial networks.
    """
    most = _negated(capacity)
    rows = [np.zeros((0, len(capacity.genes)), dtype=np.int64)]
    for cost in costs:
        try:
            X = exact_front([cost, most], epsilon=EPSILON, most=LABELS).X
        except ValueError:
            continue
        rows.append(_evenly(X[violation(X) <= 0], n // len(costs)))
    return np.concatenate(rows)


def front_of(
    genome: Genome, costs: Callable[[IntArray], FloatArray], violation: Costs, n: int, rng: np.random.Generator
) -> IntArray:
    """Up to `n` feasible rows evenly along the front of these costs, (rows, objectives), by NSGA-II."""
    start = genome.canonical(genome.spread(POPULATION, rng))
    rows, found = evolved(genome, costs, start, violation, rng)
    best = non_dominated(found) & (violation(rows) <= 0)
    return _evenly(rows[best][np.lexsort(found[best].T)], n)


def far_apart(genome: Genome, pool: IntArray, before: IntArray, n: int) -> IntArray:
    """`n` rows of the pool, each the farthest from those `before` it (Gonzalez, 1985)."""
    columns, those = (_columns(genome, rows) for rows in (pool, before))
    nearest = cdist(columns, those).min(1) if len(before) else np.full(len(pool), np.inf)
    chosen: list[int] = []
    for _ in range(min(n, len(pool))):
        chosen.append(int(np.argmax(nearest)))
        nearest = np.minimum(nearest, cdist(columns, columns[chosen[-1:]])[:, 0])
    return pool[chosen]


def evolved(
    genome: Genome,
    costs: Callable[[IntArray], FloatArray],
    start: IntArray,
    violation: Costs,
    rng: np.random.Generator,
) -> tuple[IntArray, FloatArray]:
    """Every row that NSGA-II meets on costs that anybody can compute, with them; those it starts from included."""
    inner = Nsga2(genome.genes, population=POPULATION, rng=rng)
    met, met_costs = [start], [costs(start)]
    inner.tell(start, met_costs[0], violation(start))
    for _ in range(GENERATIONS):
        X = inner.ask()
        if len(X) == 0:
            break
        met.append(X)
        met_costs.append(costs(X))
        inner.tell(X, met_costs[-1], violation(X))
    return np.concatenate(met), np.concatenate(met_costs)


def _negated(cost: AdditiveCost) -> AdditiveCost:
    """The cost whose least is this one's most; what is infinite, a block that failed, stays barred."""
    return replace(cost, arrays=tuple(np.where(np.isfinite(array), -array, np.nan) for array in cost.arrays))


def _evenly(rows: IntArray, n: int) -> IntArray:
    return rows[np.unique(np.linspace(0, len(rows) - 1, n).round().astype(int))] if len(rows) else rows


def _columns(genome: Genome, X: IntArray) -> FloatArray:
    described = Description(genome, ())
    # an option apart is as far as the ends of a gene are
    return np.concatenate([described.indicators(X) / np.sqrt(2), described.places(X)], axis=1)
