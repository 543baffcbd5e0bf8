"""NSGA-II: fronts first, then the less crowded."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hwnas.engine.algorithms import Known
from hwnas.engine.architecture import FloatArray, Gene, IntArray
from hwnas.engine.asked import Asked, Told
from hwnas.engine.genome import Genome
from hwnas.engine.selection import constrained_rank, crowding, tournament
from hwnas.engine.variation import offspring


class Nsga2:
    """NSGA-II with constraint domination (Deb, Pratap, Agarwal, Meyarivan, IEEE TEC 6(2), 2002), no duplicates.

    Uniform crossover of places, and half a mutated gene a row on average. Any number of objectives; above three, fronts
    hold nearly everybody and the search leans on crowding alone.
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
        self._parents: Told | None = None  # the best first

    def ask(self) -> IntArray:
        """The rest of `initial`, then offspring; fresh samples where these do not fill the population."""
        rows = self._asked.initial()
        bred = self._asked.bred(self._asked.batch - len(rows), self._candidates)
        return np.concatenate([rows, bred]) if len(rows) else bred

    def tell(self, X: IntArray, costs: FloatArray, violation: FloatArray) -> None:
        """Keep the best `population` of the parents and these rows. A row told again replaces its costs.

        Raises ValueError for shapes that do not fit, and for costs of a feasible row that are not finite.
        """
        told = Told.of(self._genome, self._asked, X, costs, violation)
        if len(told):
            self._parents = self._survivors(told if self._parents is None else self._parents.then(told))

    def _survivors(self, told: Told) -> Told:
        rank = constrained_rank(told.costs, told.violation)
        known = told.costs if told.violation.max() <= 0 else np.where(told.violation[:, None] > 0, 0.0, told.costs)
        distance = crowding(known, rank)
        # chance decides between equals, or the old would always stay
        return told.take(np.lexsort((self._rng.random(len(told)), -distance, rank))[: self._asked.batch])

    def _candidates(self, n: int) -> IntArray:
        parents = self._parents
        if parents is None:
            return self._genome.canonical(self._genome.spread(n, self._rng))
        # by rank, then by crowding: the order of the parents
        chosen = tournament(len(parents), n + n % 2, self._rng)
        return offspring(self._genome, parents.narrow.take(chosen, axis=0), self._rng)


algorithm = Nsga2
