"""The sandwich rule (Yu and Huang, Universally Slimmable Networks, ICCV 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, NonNegativeInt

from hwnas.engine.architecture import FloatArray, Gene, IntArray, extreme, sample, to_architecture
from hwnas.engine.objective import Costs
from hwnas.engine.training.samplers import Sampler, TrainingPath


class Config(BaseModel):
    """What is trained beside the largest and the smallest."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    middle: NonNegativeInt = 2  # random architectures a step, as in BigNAS
    pairs: NonNegativeInt = 0  # pairs of random architectures a step, for criteria that compare two


@dataclass(frozen=True)
class Sandwich(Sampler):
    """The largest, the smallest and a few random architectures at every step, the largest first.

    The smaller of a pair comes first: what a comparison pulls down is the larger one's loss.
    """

    genes: tuple[Gene, ...]
    seed: int
    macs: Costs
    config: Config

    def paths(self, step: int) -> tuple[TrainingPath, ...]:
        """See Sampler."""
        rng = np.random.default_rng([self.seed, step])
        middle = [to_architecture(row) for row in sample(self.genes, self.config.middle, rng)]
        paths = [
            TrainingPath(extreme(self.genes, largest=True), "largest"),
            TrainingPath(extreme(self.genes, largest=False), "smallest"),
            *(TrainingPath(architecture, "random") for architecture in middle),
        ]
        for _ in range(self.config.pairs):
            paths += pair(sample(self.genes, 2, rng), self.macs)
        return tuple(paths)


def pair(rows: IntArray, macs: Costs) -> list[TrainingPath]:
    """Two rows as a pair, the one of fewer MACs first."""
    costs: FloatArray = macs(rows)
    return [TrainingPath(to_architecture(rows[i]), "pair") for i in np.argsort(costs, kind="stable")]


def build(config: Config, genes: Sequence[Gene], *, seed: int, macs: Costs) -> Sandwich:
    """The sampler for a space's genes."""
    return Sandwich(tuple(genes), seed, macs, config)
