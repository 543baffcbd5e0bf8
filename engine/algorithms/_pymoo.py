"""pymoo's evolutionary algorithms over our genomes: its selection and survival, our variation and memory."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from pymoo.config import Config
from pymoo.core.population import Population
from pymoo.core.problem import Problem
from pymoo.core.termination import NoTermination
from pymoo.util.reference_direction import das_dennis, get_partition_closest_to_points

from hwnas.engine.algorithms import Algorithm, Constructor, Known
from hwnas.engine.architecture import FloatArray, Gene, IntArray
from hwnas.engine.asked import Asked, Told
from hwnas.engine.genome import Genome
from hwnas.engine.variation import offspring

# (objectives, population) -> one of pymoo's genetic algorithms. pymoo ships no types.
Build = Callable[[int, int], Any]


def through_pymoo(build: Build, *, objectives: int | None = None) -> Constructor:
    """The constructor of what `build` makes, which sees the first `objectives` costs, all of them by default.

    The rows told are kept back until a whole population is there to begin with.
    """

    def construct(
        genes: Sequence[Gene],
        *,
        population: int,
        rng: np.random.Generator,
        initial: IntArray | None = None,
        known: Known | None = None,  # noqa: ARG001
    ) -> Algorithm:
        genome = Genome.of(genes)
        asked = Asked(genome, batch=population, rng=rng, initial=initial)
        return _Driven(build, objectives, genome, asked, rng)

    return construct


def directions(n: int, objectives: int) -> FloatArray:
    """`n` weights on the unit simplex, (n, objectives), whatever the numbers.

    A lattice (Das and Dennis, SIAM Journal on Optimization 8(3), 1998) has but certain sizes. The largest one that
    fits is filled up with the points of a finer one, each the farthest from all that are there.
    """
    if objectives == 1:
        return np.ones((n, 1))
    partitions = get_partition_closest_to_points(n, objectives)
    chosen = das_dennis(partitions, objectives)
    finer = das_dennis(2 * partitions + 1, objectives)
    distance = np.full(len(finer), np.inf)
    for weight in chosen:
        distance = np.minimum(distance, ((finer - weight) ** 2).sum(1))
    filled = list(chosen)
    while len(filled) < n:
        farthest = finer[int(distance.argmax())]
        filled.append(farthest)
        distance = np.minimum(distance, ((finer - farthest) ** 2).sum(1))
    return np.array(filled)


class _Driven:
    """Ask and tell on top of pymoo's."""

    def __init__(
        self, build: Build, objectives: int | None, genome: Genome, asked: Asked, rng: np.random.Generator
    ) -> None:
        self._build = build
        self._most = objectives
        self._genome = genome
        self._asked = asked
        self._rng = rng
        self._waiting: Told | None = None  # rows that pymoo has not seen
        self._scale: tuple[FloatArray, FloatArray] | None = None  # lowest and range of the first feasible costs
        self._worst: FloatArray = np.zeros(1)  # feasible cost so far, scaled
        self._pymoo: Any = None

    def ask(self) -> IntArray:
        """The rest of `initial`, then offspring; fresh samples where these do not fill the population."""
        rows = self._asked.initial()
        missing = self._asked.batch - len(rows)
        if missing == 0 or self._asked.exhausted:
            return rows
        if self._pymoo is None:
            spread = self._asked.bred(missing, lambda n: self._genome.canonical(self._genome.spread(n, self._rng)))
            return np.concatenate([rows, spread])
        self._pymoo.n_offsprings = missing
        with np.errstate(all="ignore"):
            return np.concatenate([rows, self._pymoo.ask().get("X")])

    def tell(self, X: IntArray, costs: FloatArray, violation: FloatArray) -> None:
        """Survival of the fittest, as the algorithm has it. A row told again replaces its costs. Raises ValueError."""
        told = Told.of(self._genome, self._asked, X, costs, violation)
        self._asked.add(told.keys)
        waiting = told if self._waiting is None else self._waiting.then(told)
        while len(waiting) >= (self._asked.batch if self._pymoo is None else 1):
            self._advance(waiting.take(slice(self._asked.batch)))
            waiting = waiting.take(slice(self._asked.batch, None))
        self._waiting = waiting

    def _advance(self, told: Told) -> None:
        F = self._normalised(told.costs[:, : self._most], told.violation)
        rows = Population.new(X=told.X, F=F, G=told.violation[:, None], key=told.keys)
        if self._pymoo is None:
            self._pymoo = self._start(F.shape[1])
        else:
            here = {individual.get("key"): individual for individual in self._pymoo.pop}
            for row in rows:
                if row.get("key") in here:
                    before = here[row.get("key")]
                    before.F, before.G, before.CV = row.F, row.G, None
            rows = rows[[row.get("key") not in here for row in rows]]
        with warnings.catch_warnings(), np.errstate(all="ignore"):  # NSGA-III switches all warnings off for good
            self._pymoo.tell(infills=rows)

    def _start(self, objectives: int) -> Any:
        Config.warnings["not_compiled"] = False  # it would be printed into what a command prints
        made = self._build(objectives, self._asked.batch)
        made.mating = _Mating(self._genome, self._asked, self._rng, made.mating.selection)
        upper = self._genome.lengths - 1
        problem = Problem(n_var=len(upper), n_obj=objectives, n_ieq_constr=1, xl=0, xu=upper)
        # a Generator as seed is used as it is
        made.setup(problem, termination=NoTermination(), seed=self._rng)
        return made

    def _normalised(self, costs: FloatArray, violation: FloatArray) -> FloatArray:
        """Costs over the range of the first feasible rows, for pymoo's absolute tolerances know no units.

        Rows beyond a limit have no costs: they get the worst that a feasible row had.
        """
        feasible = violation <= 0
        if self._scale is None and feasible.any():
            low, high = costs[feasible].min(0), costs[feasible].max(0)
            size = np.where(low != 0, np.abs(low), 1.0)
            self._scale = low, np.where(high > low, high - low, size)
        F = np.zeros_like(costs)
        if self._scale is not None and feasible.any():
            low, span = self._scale
            F[feasible] = (costs[feasible] - low) / span
            self._worst = np.maximum(self._worst, F[feasible].max(0))
        F[~feasible] = self._worst
        return F


class _Mating:
    """What pymoo calls for offspring."""

    def __init__(self, genome: Genome, asked: Asked, rng: np.random.Generator, selection: Any) -> None:
        self.selection = selection
        self._genome = genome
        self._asked = asked
        self._rng = rng

    def do(self, problem: Any, pop: Any, n_offsprings: int, *, algorithm: Any, **_: Any) -> Any:
        """A pymoo population of new rows."""
        X = pop.get("X")

        def children(n: int) -> IntArray:
            parents = self.selection.do(
                problem, pop, math.ceil(n / 2), 2, to_pop=False, random_state=self._rng, algorithm=algorithm
            )
            return offspring(self._genome, X[parents.T.ravel()], self._rng)

        return Population.new(X=self._asked.bred(n_offsprings, children))
