"""Uniform draws from a part of the space: what a pruned space trains by (Xia et al., PAD-NAS, WACV 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, PositiveInt

from hwnas.engine.architecture import Gene, restrict, sample, to_architecture
from hwnas.engine.pruning import sample_architectures
from hwnas.engine.training.samplers import Prior, Sampler, TrainingPath
from hwnas.latency.block import Value


class Config(BaseModel):
    """Which options stay, and what is uniform."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    keep: dict[str, tuple[Value, ...]] = {}  # option values by gene; of a gene that is not named all stay
    uniform: Literal["options", "architectures"] = "options"  # every option of a gene alike, or every architecture
    paths: PositiveInt = 1  # a step, whose gradients are averaged


@dataclass(frozen=True)
class Restricted(Sampler):
    """Architectures of the narrowed genes; option indices keep their meaning, so the supernet is the whole space's."""

    genes: tuple[Gene, ...]
    uniform: Literal["options", "architectures"]
    n: int
    seed: int

    def paths(self, step: int) -> tuple[TrainingPath, ...]:
        """See Sampler."""
        rng = np.random.default_rng([self.seed, step])
        draw = sample if self.uniform == "options" else sample_architectures
        return tuple(TrainingPath(to_architecture(row), "random", 1 / self.n) for row in draw(self.genes, self.n, rng))


def build(config: Config, genes: Sequence[Gene], *, seed: int, prior: Prior) -> Restricted:  # noqa: ARG001 (the role's)
    """The sampler for a space's genes. Raises ValueError for a gene or an option that the space has not."""
    unknown = sorted(set(config.keep) - {gene.name for gene in genes})
    if unknown:
        raise ValueError(f"keep: no gene is called {unknown[0]!r}: the genes are {', '.join(g.name for g in genes)}")
    mask = []
    for gene in genes:
        wanted = config.keep.get(gene.name, gene.options)
        strange = [value for value in wanted if value not in gene.options]
        if strange:
            raise ValueError(f"keep: gene {gene.name!r} has no option {strange[0]!r}: choose from {gene.options}")
        mask.append([option in wanted for option in gene.options])
    return Restricted(restrict(genes, mask), config.uniform, config.paths, seed)
