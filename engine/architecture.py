"""Genes, slots and the populations made of them: what every space is, and all that follows from it.

A population is an integer array `X` of shape (n, genes) of option indices. Everything here works on whole
populations; a single architecture is a tuple of the same integers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from math import prod
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from hwnas.latency.block import Block, Value

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]
Architecture = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Gene:
    """A named choice among finite options.

    `needs` names an earlier gene and the option indices of it that switch this one on; a gene that is off holds
    index 0. `allowed` masks options without re-numbering them, so that architectures of a restricted space are
    architectures of the whole one.
    """

    name: str
    options: tuple[Value, ...]
    needs: tuple[str, frozenset[int]] | None = None
    allowed: tuple[bool, ...] | None = None

    def __post_init__(self) -> None:
        if not self.options:
            raise ValueError(f"gene {self.name!r} has no options: give it at least one")
        if len(set(self.options)) != len(self.options):
            raise ValueError(f"gene {self.name!r} has equal options {self.options}: each must be another network")
        if self.allowed is not None and (len(self.allowed) != len(self.options) or not any(self.allowed)):
            raise ValueError(f"gene {self.name!r}: the mask {self.allowed} must allow one of {self.options}")

    @property
    def choices(self) -> IntArray:
        """Indices of the allowed options."""
        return np.arange(len(self.options)) if self.allowed is None else np.flatnonzero(self.allowed)


@dataclass(frozen=True, slots=True)
class Slot:
    """A place in the network that holds at most one block, decided by the few genes in `scope`."""

    name: str
    scope: tuple[str, ...]
    block: Callable[[Mapping[str, Any]], Block | None]  # option values by gene name -> block


class Supernet(Protocol):
    """A network whose weights are shared by every subnet of a space; also an nn.Module."""

    def activate(self, architecture: Architecture) -> None:
        """Make `forward` compute this architecture."""
        ...

    def subnet(self, architecture: Architecture) -> nn.Module:
        """A plain module with its own copy of the weights, equal to the supernet with `architecture` active."""
        ...

    def __call__(self, images: Tensor) -> Tensor:
        """Logits of the active architecture."""
        ...


class PartedSupernet(Supernet, Protocol):
    """A supernet whose subnets are nn.Sequentials of one module a block, decided by the slot and the block alone.

    Nothing needs this; it saves making modules that another subnet has already.
    """

    def part(self, slot: str, block: Block) -> nn.Module:
        """The module of `block` in the slot of that name, with its own copy of the weights, in evaluation mode."""
        ...


class SearchSpace(Protocol):
    """What a space has to say; the functions of this module answer everything else."""

    @property
    def genes(self) -> tuple[Gene, ...]:
        """The choices, a gene after the one it needs."""
        ...

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The places of the network, input first."""
        ...

    def input_shape(self, architecture: Architecture) -> tuple[int, ...]:
        """Shape of one input, without the batch."""
        ...

    def supernet(self) -> nn.Module:
        """A freshly initialised supernet: an nn.Module that is a Supernet."""
        ...

    def restrict(self, mask: Sequence[Sequence[bool]]) -> SearchSpace:
        """The same space with only the masked options allowed; option indices keep their meaning."""
        ...


# ---- populations ----------------------------------------------------------------------------------------------------


def active(genes: Sequence[Gene], X: IntArray) -> BoolArray:
    """Which genes of each row are switched on, (n, genes)."""
    position = {gene.name: i for i, gene in enumerate(genes)}
    on = np.ones(X.shape, dtype=bool)
    for i, gene in enumerate(genes):
        if gene.needs is not None:
            parent, options = gene.needs
            j = position[parent]
            table = np.zeros(len(genes[j].options), dtype=bool)
            table[list(options)] = True
            on[:, i] = on[:, j] & table[X[:, j]]
    return on


def canonical(genes: Sequence[Gene], X: IntArray) -> IntArray:
    """`X` with every gene that is off at index 0, so that equal networks are equal rows. Shape (n, genes)."""
    return np.where(active(genes, X), X, 0)


def sample(genes: Sequence[Gene], n: int, rng: np.random.Generator) -> IntArray:
    """`n` canonical rows, each gene drawn uniformly from its allowed options. Rows may repeat."""
    X = np.stack([gene.choices[rng.integers(len(gene.choices), size=n)] for gene in genes], axis=1)
    return canonical(genes, X)


def extreme(genes: Sequence[Gene], *, largest: bool) -> Architecture:
    """Every gene at its last (or first) allowed option: options are listed from small to large."""
    row = np.array([[gene.choices[-1 if largest else 0] for gene in genes]])
    return to_architecture(canonical(genes, row)[0])


def to_architecture(row: IntArray) -> Architecture:
    """One row of a population as a tuple."""
    return tuple(int(i) for i in row)


def check(genes: Sequence[Gene], architecture: Sequence[int]) -> Architecture:
    """The architecture, if it is one of this space in canonical form. Raises ValueError."""
    row = tuple(int(i) for i in architecture)
    if len(row) != len(genes):
        raise ValueError(f"an architecture of this space has {len(genes)} genes, got {len(row)}: {row}")
    for gene, i in zip(genes, row, strict=True):
        if not 0 <= i < len(gene.options):
            raise ValueError(f"gene {gene.name!r} has options 0 to {len(gene.options) - 1}, got {i}")
    on = active(genes, np.array([row]))[0]
    for gene, i, is_on in zip(genes, row, on, strict=True):
        if is_on and i not in gene.choices:
            raise ValueError(f"gene {gene.name!r} is restricted to options {gene.choices.tolist()}, got {i}")
    canon = to_architecture(canonical(genes, np.array([row]))[0])
    if canon != row:
        raise ValueError(f"{row} is not canonical: genes that are off hold 0, that is {canon}")
    return row


def size(genes: Sequence[Gene]) -> int:
    """How many different architectures there are, exactly."""
    children: dict[str, list[Gene]] = {gene.name: [] for gene in genes}
    for gene in genes:
        if gene.needs is not None:
            children[gene.needs[0]].append(gene)

    @cache  # or a chain of gates would be walked once for each way through it
    def count(gene: Gene) -> int:
        total = 0
        for option in gene.choices:
            total += prod(count(child) for child in children[gene.name] if child.needs and option in child.needs[1])
        return total

    return prod(count(gene) for gene in genes if gene.needs is None)


def restrict(genes: Sequence[Gene], mask: Sequence[Sequence[bool]]) -> tuple[Gene, ...]:
    """The genes with `mask` laid over what they allow; option indices keep their meaning. Raises ValueError."""
    if len(mask) != len(genes):
        raise ValueError(f"a mask needs a row for each of the {len(genes)} genes, got {len(mask)}")
    narrowed = []
    for gene, keep in zip(genes, mask, strict=True):
        if len(keep) != len(gene.options):
            raise ValueError(f"gene {gene.name!r} has {len(gene.options)} options, its mask {len(keep)}")
        before = gene.allowed or (True,) * len(gene.options)
        narrowed.append(replace(gene, allowed=tuple(a and bool(k) for a, k in zip(before, keep, strict=True))))
    return tuple(narrowed)


# ---- options, JSON --------------------------------------------------------------------------------------------------


def options(genes: Sequence[Gene], architecture: Architecture) -> dict[str, Value]:
    """Option values by gene name."""
    return {gene.name: gene.options[i] for gene, i in zip(genes, architecture, strict=True)}


def to_json(genes: Sequence[Gene], architecture: Architecture) -> dict[str, Value]:
    """Option values of the genes that are on, by name: what a person reads and edits."""
    on = active(genes, np.array([architecture]))[0]
    return {name: value for (name, value), is_on in zip(options(genes, architecture).items(), on, strict=True) if is_on}


def from_json(genes: Sequence[Gene], data: Mapping[str, Value]) -> Architecture:
    """The architecture that `to_json` wrote. Raises ValueError."""
    unknown = sorted(set(data) - {gene.name for gene in genes})
    if unknown:
        raise ValueError(f"no gene is called {unknown[0]!r}: the genes are {', '.join(g.name for g in genes)}")
    row = np.zeros((1, len(genes)), dtype=np.int64)
    for i, gene in enumerate(genes):
        if gene.name in data:
            if data[gene.name] not in gene.options:
                raise ValueError(f"gene {gene.name!r} has no option {data[gene.name]!r}: choose from {gene.options}")
            row[0, i] = gene.options.index(data[gene.name])
    on = active(genes, row)[0]
    for gene, is_on in zip(genes, on, strict=True):
        if is_on and gene.name not in data:
            raise ValueError(f"gene {gene.name!r} is on and has no value: choose from {gene.options}")
        if not is_on and gene.name in data:
            raise ValueError(f"gene {gene.name!r} is off in this architecture: leave it out")
    return to_architecture(row[0])


# ---- blocks ---------------------------------------------------------------------------------------------------------


def placed_blocks(space: SearchSpace, architecture: Architecture) -> tuple[tuple[str, Block], ...]:
    """The blocks of one network, input first, each with the name of its slot."""
    values = options(space.genes, architecture)
    held = ((slot.name, slot.block({name: values[name] for name in slot.scope})) for slot in space.slots)
    return tuple((name, block) for name, block in held if block is not None)


def blocks(space: SearchSpace, architecture: Architecture) -> tuple[Block, ...]:
    """The blocks of one network, input first."""
    return tuple(block for _, block in placed_blocks(space, architecture))


def scope_blocks(space: SearchSpace, slot: Slot) -> Iterator[tuple[tuple[int, ...], Block | None]]:
    """Every combination of option indices that some architecture has in the slot's scope, with the block it means."""
    known = {gene.name: gene for gene in space.genes}
    decisive = set(slot.scope)
    for gene in reversed(space.genes):  # a gene after the one it needs
        if gene.name in decisive and gene.needs is not None:
            decisive.add(gene.needs[0])
    genes = [gene for gene in space.genes if gene.name in decisive]
    combinations = list(product(*(gene.choices.tolist() for gene in genes)))
    rows = canonical(genes, np.array(combinations, dtype=np.int64).reshape(len(combinations), len(genes)))
    columns = [[gene.name for gene in genes].index(name) for name in slot.scope]
    for indices in sorted({to_architecture(row) for row in rows[:, columns]}):
        yield indices, slot.block({name: known[name].options[i] for name, i in zip(slot.scope, indices, strict=True)})


def block_shares(space: SearchSpace, rng: np.random.Generator, draws: int = 2000) -> dict[Block, float]:
    """How often a block occurs in a random subnet, over `draws` of them; blocks never drawn are left out."""
    counts: Counter[Block] = Counter()
    for row in sample(space.genes, draws, rng):
        counts.update(blocks(space, to_architecture(row)))
    return {block: count / draws for block, count in counts.items()}


def every_block(space: SearchSpace) -> tuple[Block, ...]:
    """Every block that some architecture of the space can need, each once, in order of first appearance."""
    seen: dict[Block, None] = {}
    for slot in space.slots:
        for _, block in scope_blocks(space, slot):
            if block is not None:
                seen[block] = None
    return tuple(seen)
