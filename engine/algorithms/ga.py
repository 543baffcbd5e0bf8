"""A genetic algorithm of one objective: the first; limits hold the others."""

from __future__ import annotations

from typing import Any

from pymoo.algorithms.soo.nonconvex.ga import GA

from hwnas.engine.algorithms._pymoo import through_pymoo


def _build(objectives: int, population: int) -> Any:  # noqa: ARG001
    """(mu + lambda) selection by the first objective alone, behind violation: give the others limits.

    This is the search of Once-for-All and of Single Path One-Shot (accuracy under a limit on latency). The costs of
    all objectives are still evaluated and shown.
    """
    return GA(pop_size=population)


algorithm = through_pymoo(_build, objectives=1)
