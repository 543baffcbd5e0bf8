"""U-NSGA-III: NSGA-III whose parents compete, so that few objectives and one are at home too."""

from __future__ import annotations

from typing import Any

import numpy as np
from pymoo.algorithms.moo.unsga3 import UNSGA3
from pymoo.operators.selection.tournament import TournamentSelection

from hwnas.engine.algorithms._pymoo import directions, through_pymoo
from hwnas.engine.architecture import IntArray


def _build(objectives: int, population: int) -> Any:
    """U-NSGA-III (Seada and Deb, IEEE TEC 20(3), 2016) with as many reference directions as individuals."""
    selection = TournamentSelection(func_comp=_within_a_niche)
    return UNSGA3(directions(population, objectives), pop_size=population, selection=selection)


def _within_a_niche(pop: Any, P: IntArray, *, random_state: np.random.Generator, **_: Any) -> IntArray:
    """Winners of the pairs in P (n, 2), (n, 1): the smaller violation; in one niche the better rank, then the nearer.

    Chance decides the rest. pymoo's own draws from an unseeded generator between equal violations.
    """
    over = pop.get("CV")[:, 0]
    niche, rank, distance = (
        np.array([np.nan if value is None else value for value in pop.get(name, to_numpy=False)], dtype=np.float64)
        for name in ("niche", "rank", "dist_to_niche")  # rows beyond a limit have none
    )
    a, b = P.T
    lost = _compared(over, a, b)
    together = (lost == 0) & (over[a] <= 0) & (niche[a] == niche[b])
    lost = np.where(together, _compared(rank, a, b), lost)
    lost = np.where(together & (lost == 0), _compared(distance, a, b), lost)
    lost = np.where(lost == 0, random_state.integers(0, 2, len(P)) * 2 - 1, lost)
    return np.asarray(np.where(lost > 0, b, a)[:, None])


def _compared(values: Any, a: IntArray, b: IntArray) -> IntArray:
    """1 where b is less than a, -1 where it is more, else 0."""
    return np.sign(
        np.asarray(values[a] > values[b], dtype=np.int64) - np.asarray(values[a] < values[b], dtype=np.int64)
    )


algorithm = through_pymoo(_build)
