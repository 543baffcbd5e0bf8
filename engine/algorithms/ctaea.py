"""C-TAEA: one archive that converges within the limits, one that keeps variety."""

from __future__ import annotations

from typing import Any

from pymoo.algorithms.moo.ctaea import CTAEA
from pymoo.algorithms.soo.nonconvex.ga import GA

from hwnas.engine.algorithms._pymoo import directions, through_pymoo


def _build(objectives: int, population: int) -> Any:
    """C-TAEA (Li, Chen, Fu, Yao, IEEE TEC 23(2), 2019) with as many weights as individuals.

    Its archive of variety would look beyond the limits, but rows there have no costs: they count as the worst that
    was seen within. With one objective there is no variety to keep, and this is `ga`.
    """
    return CTAEA(directions(population, objectives)) if objectives > 1 else GA(pop_size=population)


algorithm = through_pymoo(_build)
