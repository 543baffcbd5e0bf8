"""Rows along the exact front of sums: known ones, and sums fitted to what was told of the other costs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import numpy as np

from hwnas.engine.additive import AdditiveCost
from hwnas.engine.algorithms import Known
from hwnas.engine.architecture import FloatArray, Gene, IntArray
from hwnas.engine.asked import Asked, Told
from hwnas.engine.exact import ExactFront, exact_front
from hwnas.engine.exact_search import additive_surrogate, seed_rows
from hwnas.engine.genome import Genome
from hwnas.engine.variation import mutate

FEWEST = 20  # feasible rows told, or one a gene where those are more, before a sum is fitted
EPSILONS = (0.0, 0.01, 0.05, 0.2)  # tried in this order; a front of more than two costs may be as large as the space
CHOICE = 16  # rows drawn for each that is asked, so that it keeps the limits if it can
MOST = 1_000_000  # partial networks, a few seconds' work, before the next epsilon is tried


class Exact:
    """Each round asks along the exact front and learns from the answers; no chance decides what is promising.

    A cost that is a sum over slots, or rises with one, is taken as it is (`known.sums`). Of any other a sum over
    genes is fitted to the rows told; before there are enough of them, rows from the smallest to the largest networks
    are asked beside the front of the known sums. Later, where a front has no new rows, mutants of it are asked.
    Limits on costs that are no objective thin the front.
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
        self._told: Told | None = None

    def ask(self) -> IntArray:
        """The rest of `initial`, then rows spread along the front."""
        rows = self._asked.initial()
        missing = self._asked.batch - len(rows)
        if missing == 0 or self._asked.exhausted:
            return rows
        front, learned = self._front()
        rows = np.concatenate([rows, self._asked.new(seed_rows(self._new(front), missing), at_most=missing)])

        def near(n: int) -> IntArray:
            drawn = CHOICE * n
            if learned:
                X = mutate(self._genome, front.X[self._rng.integers(0, len(front), drawn)], self._rng)
            else:
                X = self._genome.canonical(self._genome.spread(drawn, self._rng))
            over = np.zeros(drawn) if self._known is None else self._known.violation(X)
            return X[np.argsort(over, kind="stable")[:n]]

        return np.concatenate([rows, self._asked.bred(self._asked.batch - len(rows), near)])

    def tell(self, X: IntArray, costs: FloatArray, violation: FloatArray) -> None:
        """Remember the rows. A row told again replaces its costs. Raises ValueError."""
        told = Told.of(self._genome, self._asked, X, costs, violation)
        self._told = told if self._told is None else self._told.then(told)

    def _front(self) -> tuple[ExactFront, bool]:
        """Of all costs that are sums or were told often enough, and whether these are all costs there are."""
        known = () if self._known is None else self._known.sums
        told = self._told
        feasible = np.zeros(0, dtype=np.int64) if told is None else np.flatnonzero(told.violation <= 0)
        learned = len(feasible) >= max(FEWEST, len(self._genome.genes))
        objectives = [each for each in known if each is not None]
        if told is not None and learned:
            X, costs = told.X[feasible], told.costs[feasible]
            objectives = [
                each or additive_surrogate(self._genome.genes, X, costs[:, i])
                for i, each in enumerate(known or [None] * costs.shape[1])
            ]
        if not objectives:
            return ExactFront(np.zeros((0, len(self._genome.genes)), np.int64), np.zeros((0, 0)), 0), False
        return _whole_or_near(objectives), learned

    def _new(self, front: ExactFront) -> ExactFront:
        """The points that keep the limits and that nobody asked."""
        kept = np.array([key not in self._asked for key in self._asked.keys(front.X)], dtype=bool)
        if self._known is not None and len(front):
            kept &= self._known.violation(front.X) <= 0
        return ExactFront(front.X[kept], front.costs[kept], front.labels)


def _whole_or_near(costs: Sequence[AdditiveCost]) -> ExactFront:
    """The exact front, or one within the smallest epsilon with which it is not too large. Raises ValueError."""
    for epsilon in EPSILONS[:-1]:
        with suppress(ValueError):
            return exact_front(costs, epsilon=epsilon, most=MOST)
    return exact_front(costs, epsilon=EPSILONS[-1])


algorithm = Exact
