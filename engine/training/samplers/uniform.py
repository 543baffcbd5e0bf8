"""Uniform single path (Guo et al., Single Path One-Shot NAS, ECCV 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict

from hwnas.engine.architecture import Gene, sample, to_architecture
from hwnas.engine.training.samplers import Prior, Sampler, TrainingPath


class Config(BaseModel):
    """Nothing to choose."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class Uniform(Sampler):
    """Architectures whose every gene is drawn uniformly; a step's gradient is the average over them."""

    genes: tuple[Gene, ...]
    seed: int
    n: int = 1

    def paths(self, step: int) -> tuple[TrainingPath, ...]:
        """See Sampler."""
        rng = np.random.default_rng([self.seed, step])
        rows = sample(self.genes, self.n, rng)
        return tuple(TrainingPath(to_architecture(row), "random", 1 / self.n) for row in rows)


def build(config: Config, genes: Sequence[Gene], *, seed: int, prior: Prior) -> Uniform:  # noqa: ARG001 (the role's)
    """The sampler for a space's genes."""
    return Uniform(tuple(genes), seed)
