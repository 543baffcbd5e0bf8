"""Search by rankers: fit what was told, search on the predictions, ask for what promises the most hypervolume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hwnas.engine import rankers
from hwnas.engine.algorithms import Known
from hwnas.engine.algorithms._design import evolved, extremes, far_apart, front_of, most_capable
from hwnas.engine.algorithms._improvement import most_improving
from hwnas.engine.architecture import BoolArray, FloatArray, Gene, IntArray, size
from hwnas.engine.asked import Asked
from hwnas.engine.front import non_dominated
from hwnas.engine.genome import Genome
from hwnas.engine.objective import Costs
from hwnas.engine.rankers import Ranker
from hwnas.engine.selection import constrained_rank, crowding

RANKER = "gaussian_process"
DESIGNED = 16  # rows told before anything is fitted, or a batch where that is more
CAPACITY = 0.25  # share of the first batch that has the most of the first additive cost for its other costs
ENUMERATED = 4096  # architectures up to which all are looked at instead of an inner search
HOPES = (0.0, 1.0)  # an inner search each: deviations below the mean at which a modelled cost is taken
POOL, DRAWS = 300, 32  # candidates that a batch is chosen from, and draws of their costs
STARTERS = 500  # rows told that an inner search begins with
BEYOND = 0.1  # of the front's range by which the reference lies behind its worst costs
TRIES = 4096  # random rows looked at for feasible ones where nothing promising is left
WALKS = 1000  # batches of a walk over the space looked at for feasible ones where not even that finds any


class Surrogate:
    """Rounds of fit, inner search and choice, as in LINAS (Cummings et al., 2022), with the doubt taken into account.

    A cost that is cheap is computed, any other has a ranker of its own. Inner searches by NSGA-II find rows that are
    not dominated as predicted, and as hoped; of these the batch is the one whose expected improvement of the
    hypervolume is largest over joint draws of their costs, so that rows alike in doubt are not asked together.
    The first batch has the extremes of every additive cost, rows with the most of the first (MACs) for their other
    costs, and rows far from each other. Infeasible rows are asked only while no feasible one is found.
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
    ) -> None:
        self._genome = Genome.of(genes)
        self._rng = rng
        self._asked = Asked(self._genome, batch=population, rng=rng, initial=initial)
        self._known = known
        self._ranker = ranker
        self._size = size(genes)
        nothing = np.zeros((0, len(self._genome.genes)), dtype=np.int64)
        self._told = _Told(nothing, np.zeros((0, 0)), np.zeros(0))
        self._seen: set[bytes] = set()  # asked or told
        self._rankers: dict[int, Ranker] = {}  # kept, since a fit begins where the last one ended
        self._limits: Ranker | None = None

    def ask(self) -> IntArray:
        """The rest of `initial`, then a designed batch, then one batch a round."""
        rows = self._asked.initial()
        self._seen.update(self._asked.keys(rows))
        for propose in (self._designed if len(self._told.X) < DESIGNED else self._promising, self._random):
            if len(rows) < self._asked.batch:
                missing = self._asked.batch - len(rows)
                more = self._asked.new(propose(missing), at_most=missing)
                self._seen.update(self._asked.keys(more))
                rows = np.concatenate([rows, more])
        return rows if len(rows) else self._walked()

    def tell(self, X: IntArray, costs: FloatArray, violation: FloatArray) -> None:
        """Remember the rows. A row told again replaces its costs.

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
        if self._known is not None and costs.shape[1] != len(self._known.costs):
            raise ValueError(f"{len(self._known.costs)} objectives are known, {costs.shape[1]} were told")
        if len(self._told.X) and costs.shape[1] != self._told.costs.shape[1]:
            raise ValueError(f"{self._told.costs.shape[1]} objectives were told before, now {costs.shape[1]}")
        keys = self._asked.keys(X)
        self._asked.add(keys)
        self._seen.update(keys)
        told = self._told.then(_Told(X, costs, violation)) if len(self._told.X) else _Told(X, costs, violation)
        latest = {key: i for i, key in enumerate(self._asked.keys(told.X))}
        self._told = told.rows(np.array(list(latest.values())))

    # ---- proposals, best first --------------------------------------------------------------------------------------

    def _designed(self, n: int) -> IntArray:
        """Extremes, rows with the most capacity for their costs, then rows far from all before them."""
        rows = [self._told.X]
        if self._known is not None and self._known.additive and len(self._told.X) == 0:
            rows += [row[None] for row in extremes(self._known.additive)]
            rows.append(self._capable(self._known, int(CAPACITY * n)))
        before = np.concatenate(rows)
        pool = self._genome.canonical(self._genome.spread(max(20 * n, 200), self._rng))
        rows.append(far_apart(self._genome, self._feasible_or_nearest(pool, n), before, n))
        return self._feasible_or_nearest(np.concatenate(rows[1:]), n)

    def _capable(self, known: Known, n: int) -> IntArray:
        """Rows with the most of the first additive cost for the others, or for what else can be computed."""
        capacity, *others = known.additive
        cheap = [cost for cost in known.costs if cost is not None]
        if others and n >= 2 * len(others):
            return most_capable(capacity, others, self._violation, n)
        if cheap and n > 1:

            def costs(X: IntArray) -> FloatArray:
                return np.stack([-capacity(X), *(cost(X) for cost in cheap)], axis=1)

            return front_of(self._genome, costs, self._violation, n, self._rng.spawn(1)[0])
        return self._told.X[:0]

    def _promising(self, n: int) -> IntArray:
        """Rows whose joint expected improvement of the hypervolume is largest, then the next best as hoped."""
        self._fit()
        rows = self._candidates()
        rows = self._feasible_or_nearest(rows, n)
        told = self._told.feasible
        if len(rows) == 0 or len(told.X) == 0:
            return rows
        hoped = self._costs(rows, max(HOPES))
        rank = constrained_rank(hoped, np.zeros(len(rows)))
        rows = rows[np.lexsort((-crowding(hoped, rank), rank))]
        pool = rows[:POOL]
        front = told.costs[non_dominated(told.costs)]
        reference = front.max(0) + BEYOND * np.maximum(np.ptp(front, axis=0), 1e-12 * (1 + np.abs(front).max(0)))
        # known objectives first: along them the improvement is exact
        order = np.argsort([self._computed(i) is None for i in range(front.shape[1])], kind="stable")
        draws = self._draws(pool)[:, :, order]
        best = most_improving(draws, front[:, order], reference[order], n=n, rng=self._rng)
        return np.concatenate([pool[best], rows])

    def _random(self, n: int) -> IntArray:  # noqa: ARG002
        """Random rows; of a small space all that are left."""
        if self._size <= ENUMERATED:
            rows = self._genome.decode(range(self._size))[self._rng.permutation(self._size)]
        else:
            rows = self._genome.canonical(self._genome.draw(TRIES, self._rng))
        return self._allowed(self._unseen(rows))

    def _walked(self) -> IntArray:
        """What is left of a space that is nearly used up, a batch of it."""
        for _ in range(WALKS):
            rows = self._asked.fresh(self._asked.batch)
            self._seen.update(self._asked.keys(rows))
            if len(rows) == 0 or len(allowed := self._allowed(rows)):
                return allowed if len(rows) else rows
        return rows[:0]

    # ---- what a round does ------------------------------------------------------------------------------------------

    def _fit(self) -> None:
        """Every modelled objective on the feasible rows; without `known` the violation on all of them."""
        told, feasible = self._told, self._told.feasible
        for i in range(told.costs.shape[1]):
            if self._computed(i) is None and len(feasible.X):
                if i not in self._rankers:
                    self._rankers[i] = self._new_ranker()
                self._rankers[i].fit(feasible.X, feasible.costs[:, i])
        finite = np.isfinite(told.violation)
        if self._known is None and (told.violation[finite] > 0).any():
            self._limits = self._new_ranker() if self._limits is None else self._limits
            self._limits.fit(told.X[finite], told.violation[finite])

    def _candidates(self) -> IntArray:
        """New rows worth a closer look: all of a small space, or what inner searches meet."""
        if self._size <= ENUMERATED:
            return self._unseen(self._genome.decode(range(self._size)))
        told = self._told
        rank = constrained_rank(np.where(told.violation[:, None] > 0, 0.0, told.costs), told.violation)
        start = told.X[np.argsort(rank, kind="stable")[:STARTERS]]
        found = [start]
        for hope in HOPES:

            def costs(X: IntArray, hope: float = hope) -> FloatArray:
                return self._costs(X, hope)

            found.append(evolved(self._genome, costs, start, self._violation, self._rng.spawn(1)[0])[0])
        return self._unseen(np.unique(np.concatenate(found), axis=0))

    def _new_ranker(self) -> Ranker:
        covariates: list[Costs] = []
        if self._known is not None:
            covariates = [*self._known.additive, *(cost for cost in self._known.costs if cost is not None)]
            covariates = list({id(cost): cost for cost in covariates}.values())
        return rankers.make(self._ranker, self._genome.genes, rng=self._rng.spawn(1)[0], covariates=covariates)

    # ---- what is known of a row -------------------------------------------------------------------------------------

    def _computed(self, objective: int) -> Costs | None:
        return None if self._known is None else self._known.costs[objective]

    def _costs(self, X: IntArray, hope: float) -> FloatArray:
        """Costs of any rows: computed, or `hope` deviations below their prediction, (n, objectives)."""
        columns = []
        for i in range(self._told.costs.shape[1]):
            if (computed := self._computed(i)) is not None:
                columns.append(computed(X))
            elif i in self._rankers:
                mean, std = self._rankers[i].predict(X)
                columns.append(mean - hope * std)
            else:  # nothing feasible was told: only limits are searched for
                columns.append(np.zeros(len(X)))
        return np.stack(columns, axis=1)

    def _draws(self, X: IntArray) -> FloatArray:
        """Joint draws of the costs of rows, (draws, rows, objectives); one where everything is known."""
        draws = np.repeat(self._costs(X, 0.0)[None], DRAWS if self._rankers else 1, axis=0)
        for i, ranker in self._rankers.items():
            draws[:, :, i] = ranker.draw(X, DRAWS, self._rng)
        return draws

    def _violation(self, X: IntArray) -> FloatArray:
        """Violation of any rows, (n,): computed, or predicted where infeasible rows were told."""
        if self._known is not None:
            return self._known.violation(X)
        if self._limits is None:
            return np.zeros(len(X))
        mean, _ = self._limits.predict(X)
        least = self._told.violation[self._told.violation > 0].min()
        return np.where(mean > least / 2, mean, 0.0)

    def _feasible_or_nearest(self, rows: IntArray, n: int) -> IntArray:
        """The feasible ones in their order, or the `n` that break the limits least."""
        violation = self._violation(rows)
        return rows[violation <= 0] if (violation <= 0).any() else rows[np.argsort(violation, kind="stable")[:n]]

    def _allowed(self, rows: IntArray) -> IntArray:
        """Rows that may be asked: feasible ones, all where none is known to be or a limit is only predicted."""
        if self._known is None:
            return rows
        violation = self._known.violation(rows)
        if (violation <= 0).any() or (self._told.violation <= 0).any():
            return rows[violation <= 0]
        return rows[np.argsort(violation, kind="stable")]

    def _unseen(self, X: IntArray) -> IntArray:
        return X[[key not in self._seen for key in self._asked.keys(X)]]


@dataclass(frozen=True, slots=True)
class _Told:
    X: IntArray  # (n, genes), canonical
    costs: FloatArray  # (n, objectives)
    violation: FloatArray  # (n,)

    @property
    def feasible(self) -> _Told:
        return self.rows(self.violation <= 0)

    def rows(self, which: IntArray | BoolArray) -> _Told:
        return _Told(self.X[which], self.costs[which], self.violation[which])

    def then(self, other: _Told) -> _Told:
        return _Told(
            np.concatenate([self.X, other.X]),
            np.concatenate([self.costs, other.costs]),
            np.concatenate([self.violation, other.violation]),
        )


algorithm = Surrogate
