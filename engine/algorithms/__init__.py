"""The algorithm role: propose architectures, learn from their costs. One file an algorithm.

A file names its class `algorithm`. Other packages add theirs by an entry point in the group
"hwnas.engine.algorithms" that names such a module or class.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np

from hwnas.devices.plugins import load_plugin, plugin_names
from hwnas.engine.additive import AdditiveCost
from hwnas.engine.architecture import FloatArray, Gene, IntArray
from hwnas.engine.objective import Constraint, Costs, Objective, violation


@dataclass(frozen=True, slots=True)
class Known:
    """What an algorithm may find out about any rows by itself, without asking for them."""

    costs: tuple[Costs | None, ...]  # one an objective, in order; None where only the rows asked have it
    violation: Callable[[IntArray], FloatArray]  # of all limits together, (n,), 0 where they hold
    additive: tuple[AdditiveCost, ...] = ()  # sums over slots whose extremes are worth a look, MACs first
    sums: tuple[AdditiveCost | None, ...] = ()  # one an objective: the sum that it is or rises with; () for none

    @classmethod
    def of(
        cls,
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint] = (),
        additive: Sequence[AdditiveCost] = (),
        sums: Sequence[AdditiveCost | None] = (),
    ) -> Known:
        """What these objectives and limits tell."""
        costs = tuple(objective.costs if objective.cheap else None for objective in objectives)
        return cls(costs, lambda X: violation(constraints, X), tuple(additive), tuple(sums))


class Algorithm(Protocol):
    """Ask and tell over gene arrays. Seeded, so that the same tells give the same asks."""

    def ask(self) -> IntArray:
        """Canonical rows (n, genes), none of which was asked before; no rows when the space is used up."""
        ...

    def tell(self, X: IntArray, costs: FloatArray, violation: FloatArray) -> None:
        """Costs (n, objectives), minimised, and constraint violation (n,), 0 where feasible.

        Rows that were never asked may be told too: a search that goes on from an earlier one.
        """
        ...


class Constructor(Protocol):
    """How every algorithm is made."""

    def __call__(
        self,
        genes: Sequence[Gene],
        *,
        population: int,
        rng: np.random.Generator,
        initial: IntArray | None = None,
        known: Known | None = None,
    ) -> Algorithm:
        """`population` rows are asked at a time, those in `initial` first; `rng` is the only source of chance.

        Without `known` there is nothing but what is asked and told.
        """
        ...


def names() -> tuple[str, ...]:
    """Every algorithm installed, sorted."""
    return plugin_names(sys.modules[__name__])


def make(
    name: str,
    genes: Sequence[Gene],
    *,
    population: int,
    rng: np.random.Generator,
    initial: IntArray | None = None,
    known: Known | None = None,
) -> Algorithm:
    """The algorithm called `name` over these genes. Raises LookupError with the known names.

    >>> algorithm = make("nsga2", space.genes, population=100, rng=np.random.default_rng(0))  # doctest: +SKIP
    """
    found = load_plugin(sys.modules[__name__], name)
    constructor = cast(Constructor, getattr(found, "algorithm", found))
    return constructor(genes, population=population, rng=rng, initial=initial, known=known)
