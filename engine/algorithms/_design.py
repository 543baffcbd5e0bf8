"""The first rows of a search that learns: extremes, the most capacity for a cost, and rows far from each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from scipy.spatial.distance import cdist

from hwnas.engine.additive import AdditiveCost
from hwnas.engine.algorithms.nsga2 import Nsga2
from hwnas.engine.architecture import FloatArray, IntArray
from hwnas.engine.front import non_dominated
from hwnas.engine.objective import Costs
from hwnas.engine.operators import Genome
from hwnas.engine.rankers._description import Description

POPULATION, GENERATIONS = 100, 20  # of a search on costs that are computed


def extremes(costs: Sequence[AdditiveCost]) -> list[IntArray]:
    """The architectures with the least and the most of each cost, exactly."""
    rows = []
    for cost in costs:
        most = replace(cost, arrays=tuple(-array for array in cost.arrays))
        rows += [np.array(cost.minimum()[0]), np.array(most.minimum()[0])]
    return rows


def front_of(
    genome: Genome, costs: Callable[[IntArray], FloatArray], violation: Costs, n: int, rng: np.random.Generator
) -> IntArray:
    """Up to `n` feasible rows evenly along the front of these costs, (rows, objectives), by NSGA-II."""
    start = genome.canonical(genome.spread(POPULATION, rng))
    rows, found = evolved(genome, costs, start, violation, rng)
    best = non_dominated(found) & (violation(rows) <= 0)
    rows = rows[best][np.lexsort(found[best].T)]
    return rows[np.unique(np.linspace(0, len(rows) - 1, n).round().astype(int))] if len(rows) else rows


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


def _columns(genome: Genome, X: IntArray) -> FloatArray:
    described = Description(genome, ())
    # an option apart is as far as the ends of a gene are
    return np.concatenate([described.indicators(X) / np.sqrt(2), described.places(X)], axis=1)
