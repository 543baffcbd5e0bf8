"""AGE-MOEA-II: diversity measured along the shape that the front itself has."""

from __future__ import annotations

from typing import Any

import moocore
import numpy as np
from pymoo.algorithms.base.genetic import GeneticAlgorithm
from pymoo.algorithms.moo.nsga2 import binary_tournament
from pymoo.core.survival import Survival
from pymoo.operators.selection.tournament import TournamentSelection

from hwnas.engine.algorithms._pymoo import through_pymoo
from hwnas.engine.architecture import FloatArray, IntArray

TINY = 1e-8  # distances of rows with equal costs


def _build(objectives: int, population: int) -> Any:  # noqa: ARG001
    """AGE-MOEA-II (Panichella, GECCO 2022) on pymoo's loop and tournament.

    The survival is our own: pymoo's needs numba (200 MB, and 10 s of compiling at every start), divides by zero where
    one row is best in every objective, as happens with discrete costs, and cuts fronts behind the first blindly.
    """
    made = GeneticAlgorithm(
        pop_size=population,
        selection=TournamentSelection(func_comp=binary_tournament),
        survival=_Survival(filter_infeasible=True),
        advance_after_initial_infill=True,
    )
    made.tournament_type = "comp_by_rank_and_crowding"
    return made


class _Survival(Survival):  # type: ignore[misc]  # pymoo ships no types
    def _do(self, problem: Any, pop: Any, *_: Any, n_survive: int, **__: Any) -> Any:  # noqa: ARG002
        F = pop.get("F")
        rank = np.asarray(moocore.pareto_rank(F))
        score = scores(F, rank)
        pop.set("rank", rank, "crowding", score)
        return pop[np.lexsort((-score, rank))[:n_survive]]


def scores(F: FloatArray, rank: IntArray) -> FloatArray:
    """What each row adds, (n,), the more the better: diversity over proximity on the first front, proximity behind.

    The first front is moved to the origin and divided by where its plane cuts the axes. Its shape is that of
    sum f^p = 1 through its most central row. A row is worth the distances to its two nearest among those that are in
    already, over its p-norm; the ends of the front are in before all others.
    """
    first = rank == 0
    ideal = F[first].min(0)
    front = F[first] - ideal
    ends = _ends(front)
    span = _intercepts(front, ends)
    front = front / span
    p = _exponent(np.delete(front, ends, axis=0))
    score = np.empty(len(F))
    score[first] = _spread(_distances(front, p) / np.maximum(_norm(front, p), TINY)[:, None], ends)
    score[~first] = 1 / np.maximum(_norm((F[~first] - ideal) / span, p), TINY)
    return score


def _ends(front: FloatArray) -> IntArray:
    """The row nearest to each axis, each row once."""
    found: list[int] = []
    for axis in range(min(front.shape[1], len(front))):
        off_axis = np.delete(front, axis, axis=1)
        # an equal row that is less along the axis, else the first
        order = np.lexsort((front[:, axis], (off_axis**2).sum(1)))
        found.append(next(i for i in order.tolist() if i not in found))
    return np.array(found)


def _intercepts(front: FloatArray, ends: IntArray) -> FloatArray:
    """Where the plane through the ends cuts the axes; the largest costs where there is no such plane, (objectives,)."""
    largest: FloatArray = front.max(0)
    largest[largest <= 0] = 1.0
    if len(ends) < front.shape[1]:
        return largest
    try:
        plane = np.linalg.solve(front[ends], np.ones(len(ends)))
    except np.linalg.LinAlgError:
        return largest
    with np.errstate(divide="ignore"):
        cuts: FloatArray = np.asarray(1 / plane)
    return cuts if np.isfinite(cuts).all() and (cuts > TINY).all() else largest


def _exponent(front: FloatArray) -> float:
    """The p of sum f^p = 1 through the row nearest to the origin, 0.1 to 20; 1 where no p fits."""
    if len(front) == 0:
        return 1.0
    row = front[((front**2).sum(1)).argmin()]
    row = row[row > 0]
    # a cost of 1 and more never gets less with p, and one row alone of less never reaches the sum
    if len(row) < 2 or (row >= 1).any():
        return 1.0
    low, high = 0.1, 20.0  # the sum falls as p grows: halve the range that holds the root
    for _ in range(50):
        p = (low + high) / 2
        low, high = (p, high) if (row**p).sum() > 1 else (low, p)
    return low


def _norm(front: FloatArray, p: float) -> FloatArray:
    return np.asarray((front**p).sum(1) ** (1 / p))


def _distances(front: FloatArray, p: float) -> FloatArray:
    """Along the shape, by way of the middle of two rows, moved onto it, (n, n)."""
    on_shape = front / np.maximum(_norm(front, p), TINY)[:, None]
    found = np.empty((len(front), len(front)))
    for i, row in enumerate(on_shape):
        middle = (row + on_shape) / 2
        middle /= np.maximum(_norm(middle, p), TINY)[:, None]
        found[i] = np.sqrt(((row - middle) ** 2).sum(1)) + np.sqrt(((on_shape - middle) ** 2).sum(1))
    return np.maximum(found, TINY)


def _spread(distances: FloatArray, ends: IntArray) -> FloatArray:
    """One row after another, each the farthest from the two nearest that are in; how far it was."""
    score = np.full(len(distances), np.inf)
    taken = np.zeros(len(distances), dtype=bool)
    taken[ends] = True
    nearest = np.sort(distances[:, ends], axis=1)[:, :2]
    nearest = np.pad(nearest, ((0, 0), (0, 2 - nearest.shape[1])), mode="edge")
    for _ in range(len(distances) - len(ends)):
        total = np.where(taken, -np.inf, nearest.sum(1))
        best = int(total.argmax())
        score[best], taken[best] = total[best], True
        nearest = np.sort(np.column_stack([nearest, distances[:, best]]), axis=1)[:, :2]
    return score


algorithm = through_pymoo(_build)
