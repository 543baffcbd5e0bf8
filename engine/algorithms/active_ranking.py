"""Rounds of the ranker's best and random rows, half and half; or a score's best, once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hwnas.engine import rankers
from hwnas.engine.algorithms import Known
from hwnas.engine.architecture import FloatArray, Gene, IntArray, size
from hwnas.engine.asked import Asked, Told
from hwnas.engine.genome import Genome
from hwnas.engine.objective import Costs
from hwnas.engine.rankers import Pretrainable, Ranker
from hwnas.engine.variation import mutate

RANKER = "gaussian_process"
EXPLOIT = 0.5
ENUMERATED = 20_000  # architectures up to which all are scored
POOL, PARENTS = 4096, 20  # else so many rows, half of them mutants of the best told
LABELLED = 512  # random rows whose cheap costs a ranker begins with


class ActiveRanking:
    """AceNAS' rounds (Zhang et al., arXiv 2108.03001) for one objective, the first; limits hold the others.

    The first batch is random. Every later one is, for a share `exploit`, the rows that the ranker puts first, fitted on
    all feasible ones told, and for the rest random: with a fifth of the budget as `population` these are the paper's
    rounds. A ranker that can be pretrained begins with the costs that are known of every row, the most of the first
    (MACs) as its stand-in for the least error. With a `score` nothing is fitted: each batch has its least rows, from
    the first on.
    """

    def __init__(
        self,
        genes: Sequence[Gene],
        *,
        population: int,
        rng: np.random.Generator,
        initial: IntArray | None = None,
        known: Known | None = None,
        ranker: str = RANKER,
        exploit: float = EXPLOIT,
        score: Costs | None = None,
    ) -> None:
        if not 0 <= exploit <= 1:
            raise ValueError(f"exploit={exploit} is no share of a batch: give a number from 0 to 1")
        self._genome = Genome.of(genes)
        self._rng = rng
        self._asked = Asked(self._genome, batch=population, rng=rng, initial=initial)
        self._size = size(genes)
        self._known = known
        self._name, self._exploit, self._score = ranker, exploit, score
        self._ranker: Ranker | None = None
        self._told: Told | None = None

    def ask(self) -> IntArray:
        """The rest of `initial`, then the best by score, then random rows; fewer when the space is used up."""
        rows = self._asked.initial()
        missing = self._asked.batch - len(rows)
        # half a row is one row half of the time: batches of one exploit too
        best = int(self._exploit * missing + self._rng.random())
        if best and (score := self._scoring()) is not None:
            pool = self._feasible(self._pool())
            # a stable sort of rows in random order: equal scores are left to chance
            pool = pool[self._rng.permutation(len(pool))]
            rows = np.concatenate([rows, self._asked.new(pool[np.argsort(score(pool), kind="stable")], at_most=best)])
        missing = self._asked.batch - len(rows)
        return np.concatenate([rows, self._asked.bred(missing, self._random)]) if missing else rows

    def tell(self, X: IntArray, costs: FloatArray, violation: FloatArray) -> None:
        """Remember the rows. A row told again replaces its costs. Raises ValueError."""
        told = Told.of(self._genome, self._asked, X, costs, violation)
        self._told = told if self._told is None else self._told.then(told)

    # ---- what comes first -------------------------------------------------------------------------------------------

    def _scoring(self) -> Costs | None:
        """The score, or the ranker fitted on what was told; None where nothing feasible was."""
        if self._score is not None:
            return self._score
        told = self._told
        if told is None or not (feasible := told.violation <= 0).any():
            return None
        if self._ranker is None:
            covariates = self._cheap()
            self._ranker = rankers.make(
                self._name, self._genome.genes, rng=self._rng.spawn(1)[0], covariates=covariates
            )
            if covariates and isinstance(self._ranker, Pretrainable):
                self._pretrain(self._ranker, covariates)
        ranker = self._ranker.fit(told.X[feasible].astype(np.int64), told.costs[feasible, 0])
        return lambda X: ranker.predict(X)[0]

    def _cheap(self) -> list[Costs]:
        if self._known is None:
            return []
        costs: list[Costs] = [*self._known.additive, *(cost for cost in self._known.costs if cost is not None)]
        return list({id(cost): cost for cost in costs}.values())

    def _pretrain(self, ranker: Pretrainable, costs: Sequence[Costs]) -> None:
        X = np.unique(self._genome.canonical(self._genome.spread(LABELLED, self._rng)), axis=0)
        labels = {"capacity": -costs[0](X), **{f"cost {i}": cost(X) for i, cost in enumerate(costs[1:], 1)}}
        ranker.pretrain(X, {name: values for name, values in labels.items() if np.isfinite(values).all()})

    def _pool(self) -> IntArray:
        """Rows to choose from: all of a small space."""
        if self._size <= ENUMERATED:
            return self._genome.decode(range(self._size))
        rows = self._genome.canonical(self._genome.draw(POOL // 2, self._rng))
        if self._told is not None:
            first = np.where(self._told.violation > 0, 0.0, self._told.costs[:, 0])
            best = self._told.X[np.lexsort((first, self._told.violation))[:PARENTS]].astype(np.int64)
            parents = best[self._rng.integers(len(best), size=POOL // 2)]
            rows = np.concatenate([rows, mutate(self._genome, parents, self._rng)])
        return np.unique(rows, axis=0)

    def _feasible(self, X: IntArray) -> IntArray:
        """The rows that keep the limits; all where these are not known, or none does."""
        if self._known is None:
            return X
        holds = self._known.violation(X) <= 0
        return X[holds] if holds.any() else X

    def _random(self, n: int) -> IntArray:
        return self._feasible(self._genome.canonical(self._genome.draw(4 * n, self._rng)))


algorithm = ActiveRanking


def two_stages(
    genes: Sequence[Gene],
    *,
    population: int,
    rng: np.random.Generator,
    score: Costs,
    initial: IntArray | None = None,
    known: Known | None = None,
) -> ActiveRanking:
    """Score all, then evaluate the best: KNAS (Xu et al., ICML 2021) with its proxy as `score`, minimised.

    The first `ask` has the `population` least of a small space, or of a pool; the best of these told is the answer.
    That the best of k evaluated is good is no merit of the score: compare with k random ones.
    """
    return ActiveRanking(genes, population=population, rng=rng, initial=initial, known=known, exploit=1.0, score=score)
