"""Small spaces for tests, and the slow obvious answers about them."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from hypothesis import strategies as st
from torch import nn

from hwnas.engine.architecture import Architecture, Gene, Slot, restrict
from hwnas.latency.block import Block


@dataclass(frozen=True)
class ToySpace:
    genes: tuple[Gene, ...]
    slots: tuple[Slot, ...]

    def input_shape(self, architecture: Architecture) -> tuple[int, ...]:
        return (3, 4, 4)

    def supernet(self) -> nn.Module:
        raise NotImplementedError("a toy has no weights")

    def restrict(self, mask: Sequence[Sequence[bool]]) -> ToySpace:
        return ToySpace(restrict(self.genes, mask), self.slots)


DEPTH = Gene("depth", (1, 2, 3))
GATED = (
    DEPTH,
    Gene("kernel1", (3, 5)),
    Gene("kernel2", (3, 5), needs=("depth", frozenset({1, 2}))),
    Gene("kernel3", (3, 5, 7), needs=("depth", frozenset({2}))),
    Gene("dilation3", (1, 2), needs=("kernel3", frozenset({0, 1}))),
)


def every(genes: Sequence[Gene]) -> set[Architecture]:
    """All architectures, by looking at every combination of options."""
    position = {gene.name: i for i, gene in enumerate(genes)}

    def on(gene: Gene, row: Architecture) -> bool:
        if gene.needs is None:
            return True
        gate = position[gene.needs[0]]
        return on(genes[gate], row) and row[gate] in gene.needs[1]

    def fits(row: Architecture) -> bool:
        return all(i in gene.choices if on(gene, row) else i == 0 for gene, i in zip(genes, row, strict=True))

    return {row for row in product(*(range(len(gene.options)) for gene in genes)) if fits(row)}


def milliseconds(block: Block) -> float:
    """Some cost of a block, always the same."""
    return zlib.crc32(block.key.encode()) % 997 / 8


@st.composite
def gene_sets(draw: st.DrawFn) -> tuple[Gene, ...]:
    """One to five genes of one to three options, some gated, some restricted."""
    genes: list[Gene] = []
    for i in range(draw(st.integers(1, 5))):
        n = draw(st.integers(1, 3))
        needs = None
        if genes and draw(st.booleans()):
            gate = draw(st.sampled_from(genes))
            needs = gate.name, draw(st.frozensets(st.integers(0, len(gate.options) - 1), min_size=1))
        allowed = draw(st.none() | st.lists(st.booleans(), min_size=n, max_size=n).map(tuple).filter(any))
        genes.append(Gene(f"g{i}", tuple(range(10, 10 + n)), needs, allowed))
    return tuple(genes)


@st.composite
def spaces(draw: st.DrawFn) -> ToySpace:
    """A gene set with one to four slots; about a third of a slot's combinations hold no block."""
    genes = draw(gene_sets())
    names = [gene.name for gene in genes]
    scopes = draw(
        st.lists(st.lists(st.sampled_from(names), max_size=3, unique=True).map(tuple), min_size=1, max_size=4)
    )

    def slot(k: int, scope: tuple[str, ...]) -> Slot:
        def block(values: Mapping[str, Any]) -> Block | None:
            made = Block.of("toy", (1, 8), slot=k, **values)
            return None if milliseconds(made) % 3 < 1 else made

        return Slot(f"slot{k}", scope, block)

    return ToySpace(genes, tuple(slot(k, scope) for k, scope in enumerate(scopes)))
