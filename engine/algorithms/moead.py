"""MOEA/D: one scalar problem a direction; neighbours breed and share."""

from __future__ import annotations

from typing import Any

import numpy as np
from pymoo.algorithms.moo.moead import ParallelMOEAD, default_decomp

from hwnas.engine.algorithms._pymoo import directions, through_pymoo
from hwnas.engine.architecture import FloatArray, IntArray

NEIGHBOURS = 20
AMONG_NEIGHBOURS = 0.9  # share of matings


def _build(objectives: int, population: int) -> Any:
    """MOEA/D (Zhang and Li, IEEE TEC 11(6), 2007), Tchebycheff up to two objectives, PBI beyond.

    All directions breed before any row is told, so that a whole population is evaluated at once. A row then goes to
    the neighbours of the direction that it suits best, not of the one that it was bred for (Wang, Zhang, Gong, Zhou,
    "A replacement strategy for balancing convergence and diversity in MOEA/D", CEC 2014): so rows that were never
    asked find their place too. Limits come first: less violation wins, then the scalar cost.
    """
    made = _Decomposed(directions(population, objectives), n_neighbors=NEIGHBOURS)
    made.mating.selection = _Neighbours()
    return made


class _Decomposed(ParallelMOEAD):  # type: ignore[misc]  # pymoo ships no types
    """pymoo's, whole populations at a time and with limits."""

    def _setup(self, problem: Any, **_: Any) -> None:
        squares = ((self.ref_dirs[:, None] - self.ref_dirs) ** 2).sum(-1)
        self.neighbors = np.argsort(squares, axis=1, kind="stable")[:, : self.n_neighbors]
        self.decomposition = default_decomp(problem)

    def _initialize_advance(self, infills: Any = None, **_: Any) -> None:
        F, over = infills.get("F", "CV")
        self.ideal = F.min(0)
        best = [np.lexsort((self._scalar(F, direction), over[:, 0]))[0] for direction in self.ref_dirs]
        self.pop = infills[best]

    def _infill(self) -> Any:
        return self.mating.do(self.problem, self.pop, self.n_offsprings, algorithm=self)

    def _advance(self, infills: Any = None, **_: Any) -> None:
        self.ideal = np.minimum(self.ideal, infills.get("F").min(0))
        for row in infills:
            F, over = self.pop.get("F", "CV")
            if row.CV[0] > 0:
                near = np.argsort(-over[:, 0], kind="stable")[: self.n_neighbors]  # those farthest from the limits
                better = row.CV[0] < over[near, 0]
            else:
                near = self.neighbors[int(self._scalar(row.F, self.ref_dirs).argmin())]
                weights = self.ref_dirs[near]
                better = (over[near, 0] > 0) | (self._scalar(row.F, weights) < self._scalar(F[near], weights))
            self.pop[near[better]] = row

    def _scalar(self, F: FloatArray, weights: FloatArray) -> FloatArray:
        F, weights = np.broadcast_arrays(F, weights)
        return np.asarray(self.decomposition.do(F, weights=weights, ideal_point=self.ideal, _type="one_to_one"))


class _Neighbours:
    """Two different directions for each pair of parents, mostly neighbours of a third."""

    def do(
        self,
        problem: Any,  # noqa: ARG002
        pop: Any,
        n_select: int,
        n_parents: int,  # noqa: ARG002
        *,
        random_state: np.random.Generator,
        algorithm: Any,
        **_: Any,
    ) -> IntArray:
        """Indices of the parents, (n_select, 2)."""
        centres = np.resize(random_state.permutation(len(pop)), n_select)
        close = algorithm.neighbors[centres]
        near = np.take_along_axis(close, _pairs(n_select, close.shape[1], random_state), axis=1)
        anywhere = _pairs(n_select, len(pop), random_state)
        return np.where(random_state.random((n_select, 1)) < AMONG_NEIGHBOURS, near, anywhere)


def _pairs(n: int, among: int, rng: np.random.Generator) -> IntArray:
    """Two different numbers below `among` a row, where there are two, (n, 2)."""
    first = rng.integers(0, among, n)
    second = (first + rng.integers(1, max(among, 2), n)) % among
    return np.stack([first, second], axis=1)


algorithm = through_pymoo(_build)
