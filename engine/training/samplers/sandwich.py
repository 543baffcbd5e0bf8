"""The sandwich rule (Yu and Huang, Universally Slimmable Networks, ICCV 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hwnas.engine.architecture import Gene, extreme, sample, to_architecture
from hwnas.engine.training.samplers import TrainingPath


@dataclass(frozen=True)
class Sandwich:
    """The largest, the smallest and a few random architectures at every step, the largest first."""

    genes: tuple[Gene, ...]
    seed: int
    middle: int = 2  # random architectures a step, as in BigNAS

    def paths(self, step: int) -> tuple[TrainingPath, ...]:
        """See Sampler."""
        rng = np.random.default_rng([self.seed, step])
        middle = [to_architecture(row) for row in sample(self.genes, self.middle, rng)]
        return (
            TrainingPath(extreme(self.genes, largest=True), "largest"),
            TrainingPath(extreme(self.genes, largest=False), "smallest"),
            *(TrainingPath(architecture, "random") for architecture in middle),
        )


def build(genes: Sequence[Gene], *, seed: int) -> Sandwich:
    """The sampler for a space's genes."""
    return Sandwich(tuple(genes), seed)
