"""Genes as nodes of a graph: what a graph network reads of an architecture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hwnas.engine.architecture import FloatArray, Gene
from hwnas.engine.rankers._description import Description


@dataclass(frozen=True, slots=True)
class Graph:
    """One node a gene and, in a cell, one for what comes in and one for what goes out; arrows follow the data."""

    genes: int
    nodes: int
    arrows: tuple[tuple[int, int], ...]  # (from, to); nodes from `genes` on hold no gene

    @classmethod
    def chain(cls, genes: Sequence[Gene]) -> Graph:
        """Genes in their order, and an arrow from each gate to what it switches on."""
        position = {gene.name: i for i, gene in enumerate(genes)}
        arrows = {(i, i + 1) for i in range(len(genes) - 1)}
        arrows |= {(position[gene.needs[0]], i) for i, gene in enumerate(genes) if gene.needs is not None}
        return cls(len(genes), len(genes), tuple(sorted(arrows)))

    @classmethod
    def cell(cls, ends: Sequence[tuple[int, int]]) -> Graph:
        """A cell whose gene i is the operation on the edge `ends[i]` = (from, to) between its feature maps.

        The first feature map comes in, the last goes out. Operations follow each other where one's end is the other's
        beginning. NAS-Bench-201 is `cell([(0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3)])`.
        """
        if not ends or any(start >= end for start, end in ends):
            raise ValueError(f"edges {list(ends)} of a cell must each lead to a later feature map: write (from, to)")
        n, last = len(ends), max(end for _, end in ends)
        arrows = [(i, j) for i, (_, end) in enumerate(ends) for j, (start, _) in enumerate(ends) if end == start]
        arrows += [(n, j) for j, (start, _) in enumerate(ends) if start == 0]
        arrows += [(i, n + 1) for i, (_, end) in enumerate(ends) if end == last]
        return cls(n, n + 2, tuple(sorted(arrows)))

    @property
    def inward(self) -> FloatArray:
        """Mean over the nodes that lead to each node, (nodes, nodes)."""
        return _means(self.nodes, [(end, start) for start, end in self.arrows])

    @property
    def outward(self) -> FloatArray:
        """Mean over the nodes that each node leads to, (nodes, nodes)."""
        return _means(self.nodes, self.arrows)

    def spread(self, description: Description) -> FloatArray:
        """Which node's which feature an indicator is, (columns of `description.indicators`, nodes * features).

        Genes of equal options share features, so that a convolution is a convolution wherever it stands; each node has
        a feature of its own beside, which tells where it stands.
        """
        genes, widths = description.genome.genes, description.widths
        if len(genes) != self.genes:
            raise ValueError(f"a graph of {self.genes} genes for a space of {len(genes)}: give one that fits")
        kinds: dict[tuple[object, ...], int] = {}
        total = 0
        starts = []
        for gene, width in zip(genes, widths.tolist(), strict=True):
            key = (*gene.options, gene.needs is not None)
            if key not in kinds:
                kinds[key] = total
                total += width
            starts.append(kinds[key])
        matrix = np.zeros((int(widths.sum()), self.nodes, total))
        column = 0
        for node, (start, width) in enumerate(zip(starts, widths.tolist(), strict=True)):
            for k in range(width):
                matrix[column + k, node, start + k] = 1
            column += width
        return matrix.reshape(len(matrix), -1)


def _means(nodes: int, pairs: Sequence[tuple[int, int]]) -> FloatArray:
    """Line i is the mean over all j of pairs (i, j), 0 without any."""
    matrix = np.zeros((nodes, nodes))
    for i, j in pairs:
        matrix[i, j] = 1
    means: FloatArray = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    return means
