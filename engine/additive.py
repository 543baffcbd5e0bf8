"""Costs that are sums over slots: of a whole population by gathers, and their exact minimum."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from hwnas.engine.architecture import (
    Architecture,
    FloatArray,
    Gene,
    IntArray,
    SearchSpace,
    canonical,
    to_architecture,
)
from hwnas.latency.block import Block


@dataclass(frozen=True, slots=True)
class AdditiveCost:
    """One small array a slot over the options of its scope; an empty slot costs nothing.

    Options that a restricted space masks hold NaN unless their slot is empty, so a use of one shows.
    """

    genes: tuple[Gene, ...]
    scopes: tuple[tuple[int, ...], ...]  # gene positions, a tuple a slot
    arrays: tuple[FloatArray, ...]

    @classmethod
    def of(cls, space: SearchSpace, cost: Callable[[Block], float]) -> AdditiveCost:
        """The sum of `cost` over the blocks of a network; every block is asked for once."""
        position = {gene.name: i for i, gene in enumerate(space.genes)}
        known: dict[Block, float] = {}
        scopes, arrays = [], []
        for slot in space.slots:
            scope = tuple(position[name] for name in slot.scope)
            genes = [space.genes[i] for i in scope]
            allowed = [set(gene.choices.tolist()) for gene in genes]
            array = np.zeros([len(gene.options) for gene in genes])
            for indices in product(*(range(n) for n in array.shape)):
                block = slot.block({g.name: g.options[i] for g, i in zip(genes, indices, strict=True)})
                if block is None:
                    continue
                if all(i in choices for i, choices in zip(indices, allowed, strict=True)):
                    if block not in known:
                        known[block] = float(cost(block))
                    array[indices] = known[block]
                else:
                    array[indices] = np.nan
            scopes.append(scope)
            arrays.append(array)
        return cls(tuple(space.genes), tuple(scopes), tuple(arrays))

    def __call__(self, X: IntArray) -> FloatArray:
        """Cost of each row of a canonical population, (n,)."""
        total = np.zeros(len(X))
        for scope, array in zip(self.scopes, self.arrays, strict=True):
            total += array[tuple(X[:, scope].T)]
        return total

    def minimum(self) -> tuple[Architecture, float]:
        """The cheapest architecture and its cost, exactly.

        Genes are eliminated one after another (min-sum variable elimination: Dechter, Artificial Intelligence
        113, 1999): the arrays that hold a gene are added up, minimised over it, and remember the best option.
        Time grows with the widest array met on the way, which for a chain of slots is about the widest scope.
        """
        factors = list(zip(self.scopes, self.arrays, strict=True))
        constant = 0.0
        decided: list[tuple[int, tuple[int, ...], IntArray]] = []
        waiting = set(range(len(self.genes)))
        while waiting:
            gene = min(waiting, key=lambda g: (_width(g, factors, self.genes), g))
            waiting.remove(gene)
            held = [factor for factor in factors if gene in factor[0]]
            factors = [factor for factor in factors if gene not in factor[0]]
            rest = tuple(sorted({g for scope, _ in held for g in scope} - {gene}))
            joint = np.zeros([len(self.genes[g].options) for g in (*rest, gene)])
            for scope, array in held:
                joint = joint + _aligned(array, scope, (*rest, gene))
            barred = np.ones(joint.shape[-1], dtype=bool)
            barred[self.genes[gene].choices] = False
            joint = np.where(barred | np.isnan(joint), np.inf, joint)
            decided.append((gene, rest, joint.argmin(-1)))
            smallest = joint.min(-1)
            if rest:
                factors.append((rest, smallest))
            else:
                constant += float(smallest)
        row = np.zeros(len(self.genes), dtype=np.int64)
        for gene, rest, best in reversed(decided):
            row[gene] = best[tuple(row[list(rest)])] if rest else int(best)
        return to_architecture(canonical(self.genes, row[None])[0]), constant


def _width(gene: int, factors: Sequence[tuple[tuple[int, ...], FloatArray]], genes: Sequence[Gene]) -> int:
    around = {g for scope, _ in factors if gene in scope for g in scope}
    return int(np.prod([len(genes[g].options) for g in around], dtype=np.int64)) if around else 1


def _aligned(array: FloatArray, scope: tuple[int, ...], axes: tuple[int, ...]) -> FloatArray:
    """`array` over `scope` with its axes put in the order of `axes`, size 1 where it has none."""
    order = sorted(range(len(scope)), key=lambda i: axes.index(scope[i]))
    sizes = iter(array.shape[i] for i in order)
    return array.transpose(order).reshape([next(sizes) if axis in scope else 1 for axis in axes])
