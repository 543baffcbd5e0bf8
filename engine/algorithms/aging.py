"""Regularised evolution: the oldest dies, not the worst."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hwnas.engine.algorithms import Known
from hwnas.engine.architecture import FloatArray, Gene, IntArray
from hwnas.engine.asked import Asked, Told
from hwnas.engine.genome import Genome
from hwnas.engine.variation import mutate

# Real et al. let 25 of 100 compete for every child.
COMPETITORS = 0.25


class Aging:
    """Aging evolution (Real, Aggarwal, Huang, Le, AAAI 2019): one objective, the first; limits hold the others.

    Every child is the mutant of the best among a random quarter of the population, by violation and then by the
    first objective, and takes the place of the oldest. `population` children are bred at a time, as by that many
    workers at once; the best row found is among those told, not always still alive.
    """

    def __init__(
        self,
        genes: Sequence[Gene],
        *,
        population: int,
        rng: np.random.Generator,
        initial: IntArray | None = None,
        known: Known | None = None,  # noqa: ARG002
    ) -> None:
        self._genome = Genome.of(genes)
        self._rng = rng
        self._asked = Asked(self._genome, batch=population, rng=rng, initial=initial)
        self._alive: Told | None = None  # oldest first

    def ask(self) -> IntArray:
        """The rest of `initial`, then mutants; fresh samples where these do not fill the population."""
        rows = self._asked.initial()
        return np.concatenate([rows, self._asked.bred(self._asked.batch - len(rows), self._candidates)])

    def tell(self, X: IntArray, costs: FloatArray, violation: FloatArray) -> None:
        """The youngest `population` rows stay. A row told again replaces its costs. Raises ValueError."""
        told = Told.of(self._genome, self._asked, X, costs, violation)
        alive = told if self._alive is None else self._alive.then(told)
        self._alive = alive.take(slice(-self._asked.batch, None))

    def _candidates(self, n: int) -> IntArray:
        alive = self._alive
        if alive is None or len(alive) == 0:
            return self._genome.canonical(self._genome.draw(n, self._rng))
        first = np.where(alive.violation > 0, 0.0, alive.costs[:, 0])
        place = np.empty(len(alive), dtype=np.int64)
        place[np.lexsort((first, alive.violation))] = np.arange(len(alive))
        size = max(2, round(COMPETITORS * len(alive)))
        rivals = self._rng.integers(0, len(alive), (n, size))
        best = np.take_along_axis(rivals, place[rivals].argmin(1)[:, None], axis=1)[:, 0]
        return mutate(self._genome, alive.X[best], self._rng)


algorithm = Aging
