"""Natural-gradient search: rows are drawn from a distribution that moves towards those that ranked well."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata

from hwnas.engine.algorithms import Known
from hwnas.engine.architecture import FloatArray, Gene, IntArray
from hwnas.engine.asked import Asked, Told
from hwnas.engine.genome import Genome
from hwnas.engine.policy import CategoricalPolicy

# Of the natural gradient of utilities from -1 to 1. What is missing of the best after 200 evaluations in populations of
# 10, for steps of 0.5, 1 and 2: 0.19, 0.31 and 0.18 points on cells of four devices (20 runs), 20.1, 18.9 and 18.6 on
# forty additive genes (5 runs); `choose` in benchmarks/trefe.py.
STEP = 2.0
FLOOR = 0.1  # of what an option has in the uniform distribution: without one the first good row would stay alone
LEAST = 4  # rows that are compared at once; fewer wait
TRIES = 10  # draws for every row wanted before a limit is taken for one that is seldom kept
FLATTER = 0.25  # a draw that only repeats what was asked is drawn again from a mixture with so much of the uniform


class NaturalGradient:
    """Natural gradient over independent categoricals, as TREFE searches under a limit on latency.

    Zhang, Yao, Kwok, Bai, TPAMI 2023; the step is that of information-geometric optimisation (Akimoto et al., ICML
    2019): every option's probability p of a gene that is on moves by `-STEP * mean(u * ([drawn] - p))`. The utility u
    of a row is its rank among those told together, from -1 for the best to 1 for the worst, so units and outliers do
    not matter; rows that break a limit rank behind all others. One objective, the first; limits hold the others.

    A limit that can be computed is kept by drawing again, so what is minimised is the cost given that it holds. No
    architecture is asked twice: where the distribution has narrowed to rows that were asked, flatter ones stand in.
    The best row is among those told; the mode of the distribution may break a limit, and may never have been asked.
    """

    def __init__(
        self,
        genes: Sequence[Gene],
        *,
        population: int,
        rng: np.random.Generator,
        initial: IntArray | None = None,
        known: Known | None = None,
    ) -> None:
        self._genome = Genome.of(genes)
        self._rng = rng
        self._asked = Asked(self._genome, batch=population, rng=rng, initial=initial)
        self._known = known
        self._waiting: Told | None = None
        self._draws = 0  # since the last ask
        self._floor = FLOOR / int(self._genome.counts.max())
        self._uniform = CategoricalPolicy.uniform(genes)
        self.policy = self._uniform

    def ask(self) -> IntArray:
        """The rest of `initial`, then draws; random rows where these do not fill the population."""
        rows = self._asked.initial()
        self._draws = 0
        return np.concatenate([rows, self._asked.bred(self._asked.batch - len(rows), self._candidates)])

    def tell(self, X: IntArray, costs: FloatArray, violation: FloatArray) -> None:
        """Move the distribution by what these rows cost. Raises ValueError."""
        told = Told.of(self._genome, self._asked, X, costs, violation)
        waiting = told if self._waiting is None else self._waiting.then(told)
        if len(waiting) < LEAST:
            self._waiting = waiting
            return
        self._waiting = None
        gradient = self.policy.gradient(waiting.X, utilities(waiting.costs[:, 0], waiting.violation))
        self.policy = self.policy.descended(gradient, rate=STEP, natural=True, floor=self._floor)

    def _candidates(self, n: int) -> IntArray:
        share = 1 - (1 - FLATTER) ** self._draws
        mixed = (1 - share) * self.policy.table + share * self._uniform.table
        policy = self.policy if share == 0 else CategoricalPolicy.of(self.policy.genes, mixed)
        self._draws += 1
        if self._known is None:
            return policy.sample(n, self._rng)
        kept, broken, missing = [], [], n
        for _ in range(TRIES):
            X = policy.sample(n, self._rng)
            keeps = self._known.violation(X) <= 0
            kept.append(X[keeps])
            broken.append(X[~keeps])
            missing -= int(keeps.sum())
            if missing <= 0:
                break
        return np.concatenate([*kept, *broken])[:n]


def utilities(costs: FloatArray, violation: FloatArray) -> FloatArray:
    """Ranks of rows, (n,), from -1 for the best to 1 for the worst; equal rows share theirs.

    By violation first, where it is above 0, then by cost.
    """
    if len(costs) == 1:
        return np.zeros(1)
    broken = violation > 0
    keys = np.stack([np.where(broken, violation, 0.0), np.where(broken, 0.0, costs)], axis=1)
    _, places = np.unique(keys, axis=0, return_inverse=True)
    return np.asarray(2 * (rankdata(places) - 1) / (len(costs) - 1) - 1)


algorithm = NaturalGradient
