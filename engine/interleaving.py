"""Edges of a chain that interleave, and subsets of a chain's edges that do not."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hwnas.engine.architecture import Architecture, Gene

Edge = tuple[int, int]  # from a node to a later one

_EDGE = re.compile(r"(?P<stage>.+)\.n(?P<target>\d+)\.from(?P<source>\d+)")


def interleaved(edges: Iterable[Edge]) -> tuple[Edge, Edge] | None:
    """Two of the edges (a, b) and (c, d) with a < c < b < d, or None where there are none such.

    Of two such edges each skips a part of the other's way, so what is learned of one depends on whether the other is
    there (Tian et al., IF-NAS, 2021). Edges that share an end, follow each other or lie one inside the other do not
    interleave. Time grows with n log n. Raises ValueError for an edge that does not lead forward.
    """
    ordered = sorted(edges, key=lambda edge: (edge[0], -edge[1]))
    around: list[Edge] = []  # edges open at the current source, the innermost last
    for source, target in ordered:
        if source >= target:
            raise ValueError(f"an edge leads from a node to a later one, got ({source}, {target})")
        while around and around[-1][1] <= source:
            around.pop()
        if around and around[-1][1] < target:  # of one source the longer came first, so this one began earlier
            return around[-1], (source, target)
        around.append((source, target))
    return None


def is_interleaving_free(edges: Iterable[Edge]) -> bool:
    """Whether no two of the edges interleave. Raises ValueError for an edge that does not lead forward."""
    return interleaved(edges) is None


# ---- genes that are edges -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ChainEdge:
    """A gene that is an edge of a chain: of two edges of different stages it is never asked whether they interleave."""

    gene: int  # its position among the genes
    stage: str
    source: int
    target: int

    @property
    def is_link(self) -> bool:
        """Whether it leads to the next node; links are always there."""
        return self.target == self.source + 1


def chain_edges(genes: Sequence[Gene]) -> tuple[ChainEdge, ...]:
    """The edges that genes called STAGE.nTARGET.fromSOURCE are, in their order. Raises ValueError where none is."""
    found = []
    for i, gene in enumerate(genes):
        match = _EDGE.fullmatch(gene.name)
        if match is not None:
            found.append(ChainEdge(i, match["stage"], int(match["source"]), int(match["target"])))
    if not found:
        raise ValueError(
            f"no gene is an edge of a chain, such as s1.n3.from1; the first is {genes[0].name!r}: "
            "choose the space long_chain, or another sampler"
        )
    return tuple(found)


def reach(edges: Sequence[ChainEdge]) -> int:
    """Nodes that the longest edge leads on."""
    return max(edge.target - edge.source for edge in edges)


def kept(edges: Sequence[ChainEdge], architecture: Architecture) -> dict[str, tuple[Edge, ...]]:
    """The edges that an architecture has, by stage: a long edge at option 0 is not there."""
    found: dict[str, list[Edge]] = {edge.stage: [] for edge in edges}
    for edge in edges:
        if edge.is_link or architecture[edge.gene] > 0:
            found[edge.stage].append((edge.source, edge.target))
    return {stage: tuple(pairs) for stage, pairs in found.items()}


def with_active(genes: Sequence[Gene], edges: Sequence[ChainEdge], active: frozenset[tuple[str, int]]) -> Architecture:
    """Active nodes (stage, node) have all the edges that lead to them, others their link alone.

    Genes hold their largest allowed option, edges that are not there their smallest: a restricted space keeps what it
    must have, and has no more than it may.
    """
    row = [int(gene.choices[-1]) for gene in genes]
    for edge in edges:
        if not edge.is_link and (edge.stage, edge.target) not in active:
            row[edge.gene] = int(genes[edge.gene].choices[0])
    return tuple(row)
