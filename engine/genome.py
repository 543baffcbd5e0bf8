"""The genes as tables: what is on, what is canonical, random rows, rows by their number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from hwnas.engine.architecture import BoolArray, Gene, IntArray, size


@dataclass(frozen=True, slots=True)
class Level:
    """Genes that need an option of a gene of the level before. Many need the same: a table row is one such need."""

    gated: IntArray  # genes
    needs: IntArray  # of each, its row in the table
    gates: IntArray  # (rows,) the gene that a row asks
    offsets: IntArray  # (rows, 1) where each row begins in the flat table
    table: BoolArray  # (rows, widest) option index of the gate -> on


@dataclass(frozen=True, slots=True)
class Genome:
    """The genes as tables, so that every operator is a few gathers whatever the number of rows."""

    genes: tuple[Gene, ...]
    choices: IntArray  # (genes, widest) allowed option indices, padded with the first
    counts: IntArray  # (genes,) allowed options of each
    lengths: IntArray  # (genes,) options of each
    places: IntArray  # (genes, widest) option index -> its place among the choices, 0 where barred
    allowed: BoolArray  # (genes, widest) by option index
    levels: tuple[Level, ...]
    groups: IntArray  # (genes,) equal for genes of one place: s0.b1.kernel and s0.b1.expansion
    free: IntArray  # genes that have a choice
    whole: bool  # no option is barred
    dtype: np.dtype[np.unsignedinteger[Any]]  # the smallest that holds every option index

    @classmethod
    def of(cls, genes: Sequence[Gene]) -> Genome:
        """The tables of these genes."""
        if not genes:
            raise ValueError("a space without genes holds one network: there is nothing to search")
        widest = max(len(gene.options) for gene in genes)
        choices, places = np.zeros((2, len(genes), widest), dtype=np.int64)
        allowed = np.zeros((len(genes), widest), dtype=bool)
        for i, gene in enumerate(genes):
            choices[i] = np.pad(gene.choices, (0, widest - len(gene.choices)), constant_values=gene.choices[0])
            places[i, gene.choices] = np.arange(len(gene.choices))
            allowed[i, gene.choices] = True
        counts = np.array([len(gene.choices) for gene in genes])
        lengths = np.array([len(gene.options) for gene in genes])
        levels, groups, dtype = _levels(genes, widest), _groups(genes), np.min_scalar_type(widest)
        free = np.flatnonzero(counts > 1)
        whole = bool((counts == lengths).all())
        return cls(tuple(genes), choices, counts, lengths, places, allowed, levels, groups, free, whole, dtype)

    def active(self, X: IntArray) -> BoolArray:
        """Which genes of each row are on, (n, genes): `architecture.active` with a few gathers a level of gating."""
        return np.ascontiguousarray(self.active_columns(X.T).T)

    def active_columns(self, columns: IntArray) -> BoolArray:
        """`active` of architectures in columns, (genes, n), where each gene's options lie side by side."""
        on = np.ones(columns.shape, dtype=bool)
        for number, level in enumerate(self.levels):
            opened = level.table.take(columns.take(level.gates, axis=0) + level.offsets)
            if number:  # gates of the first level are always on
                opened &= on.take(level.gates, axis=0)
            on[level.gated] = opened.take(level.needs, axis=0)
        return on

    def canonical(self, X: IntArray) -> IntArray:
        """`X` with genes that are off at index 0."""
        return X * self.active(X) if self.levels else X

    def draw(self, n: int, rng: np.random.Generator) -> IntArray:
        """`n` rows with each gene uniform over its choices, not yet canonical."""
        # the upper half of a product with 32 random bits: 38 us, not 96 as by `integers`, for 100 rows of 45 genes, and
        # no choice is likelier than another by more than 2^-32
        bits = rng.integers(0, 2**32, size=(n, len(self.counts)), dtype=np.uint32)
        places: IntArray = (bits * self.counts.astype(np.uint64) >> np.uint64(32)).astype(np.int64)
        if self.whole:
            return places
        return np.asarray(self.choices.ravel().take(places + np.arange(len(self.counts)) * self.choices.shape[1]))

    def spread(self, n: int, rng: np.random.Generator) -> IntArray:
        """`n` rows from the smallest to the largest networks, not yet canonical.

        Independent genes average out: of 40, nearly all rows cost about the same. Here a row first draws a share u,
        then the place of each option from Binomial(choices - 1, u). With uniform u every gene is still uniform over
        its choices (a beta-binomial of 1, 1), but rows spread over the whole range, since options are listed from
        small to large. As the start of NSGA-II it reaches after 500 candidates the hypervolume that an independent
        start has not reached after 2,000 (benchmarks/search_loop.py: 0.831 and 0.825 on OFA-MobileNetV3).
        """
        places = rng.binomial(self.counts - 1, rng.random((n, 1)))
        return self.choices[np.arange(len(self.counts)), places]

    def check(self, X: IntArray) -> IntArray:
        """The rows in canonical form. Raises ValueError where one is not of this space."""
        X = np.array(X, dtype=np.int64, ndmin=2)
        if X.ndim != 2 or X.shape[1] != len(self.genes):
            raise ValueError(f"a population of this space has shape (n, {len(self.genes)}), got {X.shape}")
        outside = X.view(np.uint64) >= self.lengths.view(np.uint64)  # below 0 is far above
        if outside.any():
            row, i = np.argwhere(outside)[0]
            gene = self.genes[i]
            raise ValueError(f"row {row}: gene {gene.name!r} has {len(gene.options)} options, got index {X[row, i]}")
        restricted = np.flatnonzero(self.counts < self.lengths)
        if len(restricted):
            barred = self.active(X)[:, restricted] & ~self.allowed[restricted, X[:, restricted]]
            if barred.any():
                row, k = np.argwhere(barred)[0]
                i = restricted[k]
                choices = self.genes[i].choices.tolist()
                raise ValueError(
                    f"row {row}: gene {self.genes[i].name!r} is restricted to options {choices}, got {X[row, i]}"
                )
        return self.canonical(X)

    def decode(self, numbers: Sequence[int]) -> IntArray:
        """The architectures with these numbers, 0 to `size(genes) - 1`: every architecture has exactly one."""
        left = np.array(numbers, dtype=np.int64 if size(self.genes) < 2**62 else object)
        X = np.zeros((len(left), len(self.genes)), dtype=np.int64)
        position = {gene.name: i for i, gene in enumerate(self.genes)}
        ranges = _ranges(self.genes)

        def fill(gene: Gene, number: IntArray, rows: IntArray) -> None:
            for option, start, stop, children in ranges[gene.name]:
                inside = (number >= start) & (number < stop)
                if not inside.any():
                    continue
                X[rows[inside], position[gene.name]] = option
                rest = number[inside] - start
                for child, count in children:
                    fill(child, rest % count, rows[inside])
                    rest = rest // count

        everyone = np.arange(len(left))
        for gene in self.genes:
            if gene.needs is None:
                count = ranges[gene.name][-1][2]
                fill(gene, left % count, everyone)
                left = left // count
        return X


def _levels(genes: Sequence[Gene], widest: int) -> tuple[Level, ...]:
    position = {gene.name: i for i, gene in enumerate(genes)}
    depth: list[int] = []
    for gene in genes:
        depth.append(0 if gene.needs is None else 1 + depth[position[gene.needs[0]]])
    levels = []
    for level in range(1, max(depth) + 1):
        gated = [i for i in range(len(genes)) if depth[i] == level]
        needs = [genes[i].needs or ("", frozenset()) for i in gated]
        different = list(dict.fromkeys(needs))
        table = np.zeros((len(different), widest), dtype=bool)
        for row, (_, options) in zip(table, different, strict=True):
            row[list(options)] = True
        gates = np.array([position[gate] for gate, _ in different])
        offsets = np.arange(len(different))[:, None] * widest
        levels.append(
            Level(np.array(gated), np.array([different.index(need) for need in needs]), gates, offsets, table)
        )
    return tuple(levels)


def _groups(genes: Sequence[Gene]) -> IntArray:
    """What comes before the last dot of a gene's name is its place; a name without a dot is a place of its own."""
    places = [gene.name.rpartition(".")[0] or f".{gene.name}" for gene in genes]
    number = {place: i for i, place in enumerate(dict.fromkeys(places))}
    return np.array([number[place] for place in places])


def _ranges(genes: Sequence[Gene]) -> dict[str, list[tuple[int, int, int, list[tuple[Gene, int]]]]]:
    """For each choice of a gene that is on: its range among the ways to choose, what it switches on, with its ways."""
    ranges: dict[str, list[tuple[int, int, int, list[tuple[Gene, int]]]]] = {}
    for gene in reversed(genes):  # a gene after the one it needs
        own, start = [], 0
        for option in gene.choices.tolist():
            on = [child for child in genes if child.needs and child.needs[0] == gene.name and option in child.needs[1]]
            children = [(child, ranges[child.name][-1][2]) for child in on]
            stop = start + prod(count for _, count in children)
            own.append((option, start, stop, children))
            start = stop
        ranges[gene.name] = own
    return ranges
