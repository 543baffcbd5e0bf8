"""Who survives and who breeds: ranks, crowding, tournaments."""

from __future__ import annotations

import moocore
import numpy as np

from hwnas.engine.architecture import FloatArray, IntArray


def constrained_rank(costs: FloatArray, violation: FloatArray) -> IntArray:
    """Rank of each row, 0 the best, under constraint domination (Deb et al., 2002), (n,).

    Feasible rows are ranked by Pareto front; behind them come the others, a rank for each violation.
    """
    # moocore.pareto_rank takes 27 us for 200 x 2 and 35 us for 200 x 3, pymoo's compiled sorting 270 and 207 us
    # (efficient) or 553 and 578 us (fast)
    feasible = violation <= 0
    if feasible.all():
        return np.asarray(moocore.pareto_rank(costs), dtype=np.int64)
    rank = np.zeros(len(costs), dtype=np.int64)
    if feasible.any():
        rank[feasible] = moocore.pareto_rank(np.ascontiguousarray(costs[feasible]))
    _, order = np.unique(violation[~feasible], return_inverse=True)
    rank[~feasible] = order + (rank[feasible].max() + 1 if feasible.any() else 0)
    return rank


def crowding(costs: FloatArray, rank: IntArray) -> FloatArray:
    """Crowding distance of each row within its rank (Deb et al., 2002), (n,); infinite at the ends of an objective.

    Ranks are 0 to the largest, none left out.
    """
    n, objectives = costs.shape
    if n == 0:
        return np.zeros(0)
    if objectives == 2:
        return _crowding_of_two(costs, rank)
    # all ranks and objectives in one sort: pymoo's function is called once a front
    order = np.lexsort((costs.T, np.repeat(rank[None], objectives, axis=0)))
    value = np.take_along_axis(costs.T, order, axis=1)
    first, last, size = _fronts(rank)
    span = np.repeat(value[:, last] - value[:, first], size, axis=1)
    distance = np.full((objectives, n), np.inf)
    distance[:, 1:-1] = (value[:, 2:] - value[:, :-2]) / np.where(span[:, 1:-1] > 0, span[:, 1:-1], 1)
    distance[:, first] = distance[:, last] = np.inf
    found = np.empty((objectives, n))
    np.put_along_axis(found, order, distance, axis=1)
    return np.asarray(found.sum(0))


def _crowding_of_two(costs: FloatArray, rank: IntArray) -> FloatArray:
    """On a front of two objectives one falls where the other rises: the sum of both, scaled, is the way along it."""
    order = np.lexsort((costs[:, 0], rank))
    value = costs.take(order, axis=0)
    first, last, size = _fronts(rank)
    span = value.take(last, axis=0) - value.take(first, axis=0)
    span[span == 0] = np.inf
    way = (value / np.repeat(span, size, axis=0)).sum(1)
    distance = np.empty(len(order))
    distance[1:-1] = way[2:] - way[:-2]
    distance[first] = distance[last] = np.inf
    found = np.empty(len(order))
    found[order] = distance
    return found


def _fronts(rank: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """The first and the last place of each rank among the sorted ones, and how many have it."""
    size = np.bincount(rank)
    last = size.cumsum() - 1
    return last - size + 1, last, size


def tournament(entrants: int, n: int, rng: np.random.Generator) -> IntArray:
    """Indices of `n` winners of binary tournaments among `entrants` sorted from the best to the worst, (n,).

    Rivals are taken from whole permutations, so that everybody fights equally often.
    """
    rounds = -(-2 * n // entrants)
    drawn = rng.random((rounds, entrants)).argsort(axis=1).ravel()
    return np.minimum(drawn[:n], drawn[n : 2 * n])
