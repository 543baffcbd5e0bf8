"""Block after block from the input on (Zhang, Yao, Kwok, Bai, TREFE, TPAMI 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, PositiveInt

from hwnas.engine.architecture import Gene, canonical, sample, to_architecture
from hwnas.engine.pruning import sample_architectures
from hwnas.engine.training.samplers import Prior, Sampler, TrainingPath


class Config(BaseModel):
    """The blocks, and how long each is the one that learns."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    blocks: tuple[str, ...] = ()  # first words of gene names, input first; all of them, in their order, if not given
    steps: PositiveInt = 1000  # a block
    freeze: bool = False  # the blocks before it; whether the paper does is not settled by what is published
    uniform: Literal["options", "architectures"] = "options"  # every option of a gene alike, or every architecture


@dataclass(frozen=True)
class ProgressiveBlocks(Sampler):
    """A random architecture a step, in whose later blocks, which do not learn yet, every gene is at its smallest.

    Genes of no block (their names begin otherwise) are always drawn. A supernet that can end behind a block, with a
    head of its own there, is told by the training where: see `block`; then what the later genes hold does not matter.
    """

    genes: tuple[Gene, ...]
    blocks: tuple[str, ...]
    steps: int
    freeze: bool
    uniform: Literal["options", "architectures"]
    seed: int

    def block(self, step: int) -> str | None:
        """The block that learns at a step; None once the last has had its steps, when all learn together."""
        number = step // self.steps
        return self.blocks[number] if number < len(self.blocks) else None

    def frozen(self, step: int) -> tuple[str, ...]:
        """See Sampler."""
        learning = self.block(step)
        return self.blocks[: self.blocks.index(learning)] if self.freeze and learning is not None else ()

    def paths(self, step: int) -> tuple[TrainingPath, ...]:
        """See Sampler."""
        rng = np.random.default_rng([self.seed, step])
        draw = sample if self.uniform == "options" else sample_architectures
        row = draw(self.genes, 1, rng)
        learning = self.block(step)
        if learning is not None:
            later = set(self.blocks[self.blocks.index(learning) + 1 :])
            for i, gene in enumerate(self.genes):
                if _block_of(gene) in later:
                    row[0, i] = gene.choices[0]
        return (TrainingPath(to_architecture(canonical(self.genes, row)[0]), "random"),)


def build(config: Config, genes: Sequence[Gene], *, seed: int, prior: Prior) -> ProgressiveBlocks:  # noqa: ARG001 (the role's)
    """The sampler for a space's genes. Raises ValueError for a block that no gene belongs to."""
    known = tuple(dict.fromkeys(filter(None, map(_block_of, genes))))
    unknown = [name for name in config.blocks if name not in known]
    if unknown:
        raise ValueError(f"blocks: no gene belongs to {unknown[0]!r}: the blocks are {', '.join(known) or 'none'}")
    return ProgressiveBlocks(tuple(genes), config.blocks or known, config.steps, config.freeze, config.uniform, seed)


def _block_of(gene: Gene) -> str | None:
    """The first word of a name of several, as s1 of s1.b2.kernel."""
    first, dot, _ = gene.name.partition(".")
    return first if dot else None
