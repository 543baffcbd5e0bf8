"""Evolution whose parents are the best of all that was found: half of a generation mutants, half crossings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hwnas.engine.algorithms import Known
from hwnas.engine.architecture import FloatArray, Gene, IntArray
from hwnas.engine.asked import Asked, Told
from hwnas.engine.genome import Genome
from hwnas.engine.variation import crossover

# Draws for every row wanted before a limit is taken for one that is seldom kept, and the rest is asked as it is.
TRIES = 10


@dataclass(frozen=True, slots=True)
class Constants:
    """What tells one such search from another."""

    parents: float  # of a generation's rows: so many of the best of all rows told breed
    resampled: float  # chance of a mutant's gene to be drawn anew, from all its choices


class BestParents:
    """One objective, the first; limits hold the others.

    A generation is half mutants of a parent, half uniform crossings of two, in the order in which chance puts them.
    Children that break a limit that can be computed are bred again, `TRIES` times at most, and never evaluated while
    others are to be had. What cannot be bred is drawn at random.
    """

    def __init__(
        self,
        constants: Constants,
        genes: Sequence[Gene],
        *,
        population: int,
        rng: np.random.Generator,
        initial: IntArray | None = None,
        known: Known | None = None,
    ) -> None:
        self._constants = constants
        self._genome = Genome.of(genes)
        self._rng = rng
        self._asked = Asked(self._genome, batch=population, rng=rng, initial=initial)
        self._known = known
        self._parents: Told | None = None

    def ask(self) -> IntArray:
        """The rest of `initial`, then children; random rows where these do not fill the population."""
        rows = self._asked.initial()
        return np.concatenate([rows, self._asked.bred(self._asked.batch - len(rows), self._legal)])

    def tell(self, X: IntArray, costs: FloatArray, violation: FloatArray) -> None:
        """The best of the parents and these rows breed on. A row told again replaces its costs. Raises ValueError."""
        told = Told.of(self._genome, self._asked, X, costs, violation)
        if len(told):
            both = told if self._parents is None else self._parents.then(told)
            first = np.where(both.violation > 0, 0.0, both.costs[:, 0])
            best = np.lexsort((first, both.violation))
            self._parents = both.take(best[: max(2, round(self._constants.parents * self._asked.batch))])

    def _legal(self, n: int) -> IntArray:
        """`n` children, those that keep the limits before the others."""
        if self._known is None:
            return self._children(n)
        kept, broken, missing = [], [], n
        for _ in range(TRIES):
            X = self._children(n)
            keeps = self._known.violation(X) <= 0
            kept.append(X[keeps])
            broken.append(X[~keeps])
            missing -= int(keeps.sum())
            if missing <= 0:
                break
        return np.concatenate([*kept, *broken])[:n]

    def _children(self, n: int) -> IntArray:
        if self._parents is None:
            return self._genome.canonical(self._genome.draw(n, self._rng))
        parents, half = self._parents.X, n // 2
        crossed = np.zeros((0, parents.shape[1]), dtype=np.int64)
        if len(parents) > 1:
            first = self._rng.integers(0, len(parents), half)
            second = (first + self._rng.integers(1, len(parents), half)) % len(parents)  # never the same parent twice
            crossed = crossover(self._genome, parents[first], parents[second], self._rng, by_place=False)[:half]
        mutants = self._mutants(parents[self._rng.integers(0, len(parents), n - len(crossed))])
        return self._rng.permutation(np.concatenate([mutants, crossed]))

    def _mutants(self, X: IntArray) -> IntArray:
        """Canonical rows with each gene drawn anew by chance; so is a gene that this switches on."""
        drawn = self._genome.draw(len(X), self._rng)
        anew = self._rng.random(X.shape) < self._constants.resampled
        return self._genome.canonical(np.where(anew | ~self._genome.active(X), drawn, X))
