"""NSGA-II: fronts first, then the less crowded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hwnas.engine.architecture import FloatArray, Gene, IntArray
from hwnas.engine.operators import Asked, Genome, constrained_rank, crossover, crowding, mutate, tournament

# Five matings that leave rows missing have used up most of what this population can breed.
MATINGS = 5


class Nsga2:
    """NSGA-II with constraint domination (Deb, Pratap, Agarwal, Meyarivan, IEEE TEC 6(2), 2002), no duplicates.

    Uniform crossover and a mutation of one gene a row on average. Any number of objectives; above three, fronts
    hold nearly everybody and the search leans on crowding alone.
    """

    def __init__(
        self, genes: Sequence[Gene], *, population: int, rng: np.random.Generator, initial: IntArray | None = None
    ) -> None:
        self._genome = Genome.of(genes)
        self._rng = rng
        self._asked = Asked(self._genome, batch=population, rng=rng, initial=initial)
        self._parents: _Parents | None = None

    def ask(self) -> IntArray:
        """The rest of `initial`, then offspring; fresh samples where these do not fill the population."""
        rows = [self._asked.initial()]
        missing = self._asked.batch - len(rows[0])
        if self._parents is not None and missing == self._asked.batch:
            for _ in range(MATINGS):
                rows.append(self._asked.new(self._offspring(self._parents), at_most=missing))
                missing -= len(rows[-1])
                if missing == 0:
                    break
        if missing:
            rows.append(self._asked.fresh(missing))
        return np.concatenate(rows)

    def tell(self, X: IntArray, costs: FloatArray, violation: FloatArray) -> None:
        """Keep the best `population` of the parents and these rows. A row told again replaces its costs.

        Raises ValueError for shapes that do not fit, and for costs of a feasible row that are not finite.
        """
        X = self._genome.check(X)
        costs, violation = np.asarray(costs, dtype=np.float64), np.asarray(violation, dtype=np.float64)
        if costs.ndim != 2 or costs.shape[0] != len(X) or violation.shape != (len(X),):
            raise ValueError(
                f"{len(X)} rows need costs (rows, objectives) and violation (rows,), "
                f"got {costs.shape} and {violation.shape}"
            )
        if np.isnan(violation).any() or not np.isfinite(costs[violation <= 0]).all():
            raise ValueError("a feasible row has costs that are not finite: tell a failed row with violation inf")
        if len(X) == 0:
            return
        self._asked.add(X)
        if self._parents is not None:
            if costs.shape[1] != self._parents.costs.shape[1]:
                raise ValueError(f"{self._parents.costs.shape[1]} objectives were told before, now {costs.shape[1]}")
            X = np.concatenate([self._parents.X, X])
            costs = np.concatenate([self._parents.costs, costs])
            violation = np.concatenate([self._parents.violation, violation])
        latest = list({key: i for i, key in enumerate(self._asked.keys(X))}.values())
        self._parents = self._survivors(X[latest], costs[latest], violation[latest])

    def _survivors(self, X: IntArray, costs: FloatArray, violation: FloatArray) -> _Parents:
        rank = constrained_rank(costs, violation)
        distance = crowding(np.where(violation[:, None] > 0, 0.0, costs), rank)
        # chance decides between equals, or the old would always stay
        best = np.lexsort((self._rng.random(len(X)), -distance, rank))[: self._asked.batch]
        return _Parents(X[best], costs[best], violation[best], rank[best], distance[best])

    def _offspring(self, parents: _Parents) -> IntArray:
        pairs = -(-self._asked.batch // 2)
        chosen = tournament(parents.rank, parents.distance, 2 * pairs, self._rng)
        children = crossover(self._genome, parents.X[chosen[:pairs]], parents.X[chosen[pairs:]], self._rng)
        return mutate(self._genome, children, self._rng)


@dataclass(frozen=True, slots=True)
class _Parents:
    X: IntArray  # (n, genes), canonical
    costs: FloatArray  # (n, objectives)
    violation: FloatArray  # (n,)
    rank: IntArray  # (n,)
    distance: FloatArray  # (n,)


algorithm = Nsga2
