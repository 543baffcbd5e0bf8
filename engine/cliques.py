"""Additive costs as a walk over small tables that share few genes: what exact algorithms follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, log2, prod

import numpy as np

from hwnas.engine.additive import AdditiveCost, aligned, valid
from hwnas.engine.architecture import FloatArray, Gene, IntArray

LARGEST_TABLE = 20_000_000  # entries; 160 MB a cost


@dataclass(frozen=True, slots=True)
class Step:
    """Some genes that costs join, each way to set them that an architecture can have, and what it adds.

    Of the genes that earlier steps set, `before` are those that this step or a later one still needs; `after` are
    those that later steps need.
    """

    genes: tuple[int, ...]  # gene positions, sorted
    rows: IntArray  # (ways, genes of the step), option indices
    costs: FloatArray  # (ways, costs), finite
    before: tuple[int, ...]
    after: tuple[int, ...]

    @property
    def shared(self) -> tuple[int, ...]:
        """Its genes that other steps have too."""
        return tuple(gene for gene in self.genes if gene in {*self.before, *self.after})

    def columns(self, genes: Sequence[int]) -> IntArray:
        """The options that each way gives to `genes`, (ways, genes)."""
        return self.rows[:, [self.genes.index(gene) for gene in genes]]


@dataclass(frozen=True, slots=True)
class Walk:
    """Steps whose costs add up to those of whole architectures, and what is needed together between them.

    Costs are rounded to multiples of a power of two so small that sums of them need no rounding (about 1e-16 of the
    largest total): equal networks then tie whatever the order of their slots, and bounds are exact.
    """

    genes: tuple[Gene, ...]
    steps: tuple[Step, ...]
    rounding: FloatArray  # (costs,) by how much the sum of one architecture may differ from AdditiveCost's

    @classmethod
    def of(cls, costs: Sequence[AdditiveCost]) -> Walk:
        """The walk of these costs over one space, in the order of the slots of the first. Raises ValueError."""
        genes = costs[0].genes
        if any(cost.genes != genes for cost in costs):
            raise ValueError("these costs are of different spaces: make all of them from one")
        gates = [valid(genes, i) for i in range(len(genes))]
        scopes = [scope for cost in costs for scope in cost.scopes] + [scope for scope, _ in gates]
        cliques = _ordered(_largest(scopes))
        _check(genes, cliques)
        tables = [np.zeros((*(len(genes[g].options) for g in clique), len(costs))) for clique in cliques]
        rounding = np.zeros(len(costs))
        for column, cost in enumerate(costs):
            priced = [np.where(np.isnan(array), np.inf, array) for array in cost.arrays]
            unit = _unit(priced)
            rounding[column] = unit * (len(priced) + 1)
            for scope, array in zip(cost.scopes, priced, strict=True):
                k = next(k for k, clique in enumerate(cliques) if set(scope) <= set(clique))
                tables[k][..., column] += aligned(np.round(array / unit) * unit, scope, cliques[k])
        for scope, array in gates:
            for clique, table in zip(cliques, tables, strict=True):
                if set(scope) <= set(clique):
                    np.add(table, aligned(array, scope, clique)[..., None], out=table)
        steps = []
        for k, (clique, table) in enumerate(zip(cliques, tables, strict=True)):
            earlier, later = {g for c in cliques[:k] for g in c}, {g for c in cliques[k + 1 :] for g in c}
            possible = np.isfinite(table).all(-1)
            before, after = sorted(earlier & (later | set(clique))), sorted(later & (earlier | set(clique)))
            steps.append(Step(clique, np.argwhere(possible), table[possible], tuple(before), tuple(after)))
        return cls(genes, tuple(steps), rounding)

    def numbers(self, options: IntArray, genes: Sequence[int], *, within: Sequence[int] | None = None) -> IntArray:
        """Option indices (n, genes) of `genes` as one number a row, in the number system of the genes `within`."""
        total = np.zeros(len(options), dtype=np.int64)
        place = 1
        for gene in reversed(genes if within is None else within):
            if gene in genes:
                total += options[:, list(genes).index(gene)] * place
            place *= len(self.genes[gene].options)
        return total

    def options(self, genes: Sequence[int]) -> IntArray:
        """Of every number, the option indices of `genes` that it stands for, (numbers, genes)."""
        shape = self._shape(genes)
        return (
            np.stack(np.unravel_index(np.arange(prod(shape)), shape), axis=1) if shape else np.zeros((1, 0), np.int64)
        )

    def to_go(self, *, greatest: bool = False) -> list[FloatArray]:
        """The least, or greatest, that each step and all later ones add, (options of its `before`, costs).

        One array a step, and zeros behind the last. Each cost has a bound of its own. Where nothing goes on the least
        is infinity and the greatest minus infinity.
        """
        sign = -1.0 if greatest else 1.0
        bounds = [np.zeros(len(self.rounding))]  # times the sign
        for step in reversed(self.steps):
            axes = tuple(sorted({*step.before, *step.after}))
            shape = self._shape(step.shared)
            flat = np.full((prod(shape), len(self.rounding)), np.inf)
            np.minimum.at(flat, self.numbers(step.columns(step.shared), step.shared), sign * step.costs)
            own = flat.reshape(*shape, -1)
            decided = tuple(axis for axis, gene in enumerate(axes) if gene not in step.before)
            columns = [
                aligned(own[..., j], step.shared, axes) + aligned(bounds[-1][..., j], step.after, axes)
                for j in range(len(self.rounding))
            ]
            bounds.append(np.stack([column.min(decided) for column in columns], axis=-1))
        return [sign * bound for bound in reversed(bounds)]

    def _shape(self, genes: Sequence[int]) -> tuple[int, ...]:
        return tuple(len(self.genes[g].options) for g in genes)


def _largest(scopes: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """The scopes that are part of no other, each once and sorted, in order of appearance."""
    each = list(dict.fromkeys(tuple(sorted(scope)) for scope in scopes if scope))
    return [scope for scope in each if not any(set(scope) < set(other) for other in each)]


def _ordered(cliques: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """The order given, but one that brings no gene in comes as soon as all its genes that others have are there.

    So what costs share is forgotten early: between two steps everything is kept that both sides need.
    """
    everywhere = [gene for clique in cliques for gene in clique]
    brought: dict[int, int] = {}
    places = []
    for k, clique in enumerate(cliques):
        shared = [gene for gene in clique if everywhere.count(gene) > 1]
        if shared and all(gene in brought for gene in shared):
            places.append((max(brought[gene] for gene in shared), k))
        else:
            places.append((k, -1))
            for gene in shared:
                brought.setdefault(gene, k)
    return [cliques[k] for k in sorted(range(len(cliques)), key=lambda k: places[k])]


def _check(genes: Sequence[Gene], cliques: Sequence[tuple[int, ...]]) -> None:
    """Raises ValueError where a clique, with what must be remembered beside it, is too large a table."""
    for k, clique in enumerate(cliques):
        earlier, later = {g for c in cliques[:k] for g in c}, {g for c in cliques[k:] for g in c}
        needed = sorted({*clique, *(earlier & later)})
        entries = prod(len(genes[g].options) for g in needed)
        if entries > LARGEST_TABLE:
            names = ", ".join(genes[g].name for g in needed)
            raise ValueError(
                f"{entries:.3g} combinations of {names} would have to be told apart, at most {LARGEST_TABLE:.3g} can "
                "be: restrict these genes or leave out the cost that joins them"
            )


def _unit(arrays: Sequence[FloatArray]) -> float:
    """A power of two of which 2^52 are more than any sum of one entry of each array."""
    total = sum(float(np.abs(array[np.isfinite(array)]).max(initial=0)) for array in arrays)
    return 2.0 ** (ceil(log2(total)) - 51) if total > 0 else 1.0
