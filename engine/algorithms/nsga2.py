"""NSGA-II: fronts first, then the less crowded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hwnas.engine.algorithms import Known
from hwnas.engine.architecture import FloatArray, Gene, IntArray
from hwnas.engine.operators import Asked, Genome, constrained_rank, crossover, crowding, mutate, tournament

# Five matings that leave rows missing have used up most of what this population can breed.
MATINGS = 5

# Genes expected to mutate in a row. One gives less hypervolume after 2,000 candidates: 0.846, not 0.848, on
# OFA-MobileNetV3 (8 seeds, standard deviation 0.001), 0.782, not 0.786, on 40 additive genes (20 seeds, 0.003).
CHANGES = 0.5


class Nsga2:
    """NSGA-II with constraint domination (Deb, Pratap, Agarwal, Meyarivan, IEEE TEC 6(2), 2002), no duplicates.

    Uniform crossover, and half a mutated gene a row on average. Any number of objectives; above three, fronts
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
        self._parents: _Parents | None = None

    def ask(self) -> IntArray:
        """The rest of `initial`, then offspring; fresh samples where these do not fill the population."""
        rows = [self._asked.initial()]
        missing = self._asked.batch - len(rows[0])
        for _ in range(MATINGS):
            if missing == 0:
                break
            # a few more than are missing: one child in a hundred is a repeat, and a second mating costs more than rows
            rows.append(self._asked.new(self._candidates(missing + missing // 20 + 1), at_most=missing))
            missing -= len(rows[-1])
        return np.concatenate([*rows, self._asked.fresh(missing)])

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
        keys = self._asked.keys(X)
        self._asked.add(keys)
        parents = self._parents
        if parents is not None:
            if costs.shape[1] != parents.costs.shape[1]:
                raise ValueError(f"{parents.costs.shape[1]} objectives were told before, now {costs.shape[1]}")
            X = np.concatenate([parents.X, X])
            costs = np.concatenate([parents.costs, costs])
            violation = np.concatenate([parents.violation, violation])
            keys = parents.keys + keys
        latest = {key: i for i, key in enumerate(keys)}
        if len(latest) < len(keys):
            kept = list(latest.values())
            X, costs, violation, keys = X[kept], costs[kept], violation[kept], list(latest)
        self._parents = self._survivors(X, costs, violation, keys)

    def _survivors(self, X: IntArray, costs: FloatArray, violation: FloatArray, keys: list[bytes]) -> _Parents:
        rank = constrained_rank(costs, violation)
        distance = crowding(np.where(violation[:, None] > 0, 0.0, costs), rank)
        # chance decides between equals, or the old would always stay
        best = np.lexsort((self._rng.random(len(X)), -distance, rank))[: self._asked.batch]
        best_keys = [keys[i] for i in best.tolist()]
        return _Parents(X[best], costs[best], violation[best], rank[best], distance[best], best_keys)

    def _candidates(self, n: int) -> IntArray:
        parents = self._parents
        if parents is None:
            return self._genome.canonical(self._genome.spread(n, self._rng))
        pairs = -(-n // 2)
        chosen = tournament(parents.rank, parents.distance, 2 * pairs, self._rng)
        children = crossover(self._genome, parents.X[chosen[:pairs]], parents.X[chosen[pairs:]], self._rng)
        return mutate(self._genome, children, self._rng, changes=CHANGES)


@dataclass(frozen=True, slots=True)
class _Parents:
    X: IntArray  # (n, genes), canonical
    costs: FloatArray  # (n, objectives)
    violation: FloatArray  # (n,)
    rank: IntArray  # (n,)
    distance: FloatArray  # (n,)
    keys: list[bytes]


algorithm = Nsga2
