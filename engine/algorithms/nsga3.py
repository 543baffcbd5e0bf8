"""NSGA-III: many objectives, spread by reference directions."""

from __future__ import annotations

from typing import Any

import numpy as np
from pymoo.algorithms.moo.nsga3 import NSGA3
from pymoo.operators.selection.tournament import TournamentSelection

from hwnas.engine.algorithms._pymoo import directions, through_pymoo
from hwnas.engine.architecture import IntArray


def _build(objectives: int, population: int) -> Any:
    """NSGA-III (Deb and Jain, IEEE TEC 18(4), 2014) with as many reference directions as individuals."""
    selection = TournamentSelection(func_comp=_by_violation_then_chance)
    return NSGA3(directions(population, objectives), pop_size=population, selection=selection)


def _by_violation_then_chance(pop: Any, P: IntArray, *, random_state: np.random.Generator, **_: Any) -> IntArray:
    """Winners of the pairs in P (n, 2), (n, 1). pymoo's own draws from an unseeded generator between equals."""
    over = pop.get("CV")[:, 0]
    a, b = P.T
    b_wins = (over[b] < over[a]) | ((over[b] == over[a]) & random_state.integers(0, 2, len(P), dtype=bool))
    return np.asarray(np.where(b_wins, b, a)[:, None])


algorithm = through_pymoo(_build)
