"""Uniform single path (Guo et al., Single Path One-Shot NAS, ECCV 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hwnas.engine.architecture import Gene, sample, to_architecture
from hwnas.engine.training.samplers import TrainingPath


@dataclass(frozen=True)
class Uniform:
    """One architecture a step, every gene drawn uniformly."""

    genes: tuple[Gene, ...]
    seed: int

    def paths(self, step: int) -> tuple[TrainingPath, ...]:
        """See Sampler."""
        rng = np.random.default_rng([self.seed, step])
        return (TrainingPath(to_architecture(sample(self.genes, 1, rng)[0]), "random"),)


def build(genes: Sequence[Gene], *, seed: int) -> Uniform:
    """The sampler for a space's genes."""
    return Uniform(tuple(genes), seed)
