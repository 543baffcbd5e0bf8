"""Strict fairness (Chu et al., FairNAS, ICCV 2021): every option of every gene trains equally often."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict

from hwnas.engine.architecture import Gene, canonical, to_architecture
from hwnas.engine.training.samplers import Prior, Sampler, TrainingPath


class Config(BaseModel):
    """Nothing to choose."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class Fair(Sampler):
    """As many architectures a step as the largest gene has options, no two with the same option of such a gene.

    The weights move once a step, so no option sees weights that another one has just changed. Genes with fewer
    options go round theirs: each option is used as often as any other of its gene, give or take one. A gene that is
    off in some of the architectures is trained in the others alone.
    """

    genes: tuple[Gene, ...]
    seed: int

    def paths(self, step: int) -> tuple[TrainingPath, ...]:
        """See Sampler."""
        rng = np.random.default_rng([self.seed, step])
        n = max(len(gene.choices) for gene in self.genes)
        columns = []
        for gene in self.genes:
            rounds = [rng.permutation(gene.choices) for _ in range(-(-n // len(gene.choices)))]
            columns.append(np.concatenate(rounds)[:n])
        rows = canonical(self.genes, np.stack(columns, axis=1))
        return tuple(TrainingPath(to_architecture(row), "random", 1 / n) for row in rows)


def build(config: Config, genes: Sequence[Gene], *, seed: int, prior: Prior) -> Fair:  # noqa: ARG001 (the role's)
    """The sampler for a space's genes."""
    return Fair(tuple(genes), seed)
