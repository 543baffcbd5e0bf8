"""The sandwich rule (Yu and Huang, Universally Slimmable Networks, ICCV 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, NonNegativeInt

from hwnas.engine.architecture import FloatArray, Gene, IntArray, extreme, sample, to_architecture
from hwnas.engine.objective import Costs
from hwnas.engine.training.samplers import Prior, Sampler, TrainingPath


class Config(BaseModel):
    """What is trained beside the largest and the smallest."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    middle: NonNegativeInt = 2  # random architectures a step, as in BigNAS
    pairs: NonNegativeInt = 0  # pairs of random architectures a step, for criteria that compare two
    prior: str = "macs"  # by what the two are ordered: MACs, or a proxy such as zen


@dataclass(frozen=True)
class Sandwich(Sampler):
    """The largest, the smallest and a few random architectures at every step, the largest first.

    The one of a pair that promises less comes first: what a comparison pulls down is the other one's loss.
    """

    genes: tuple[Gene, ...]
    seed: int
    promise: Costs
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
            paths += pair(sample(self.genes, 2, rng), self.promise)
        return tuple(paths)


def pair(rows: IntArray, promise: Costs) -> list[TrainingPath]:
    """Two rows as a pair, the one that promises less first."""
    promises: FloatArray = promise(rows)
    return [TrainingPath(to_architecture(rows[i]), "pair") for i in np.argsort(promises, kind="stable")]


def build(config: Config, genes: Sequence[Gene], *, seed: int, prior: Prior) -> Sandwich:
    """The sampler for a space's genes. Raises LookupError with the known names for a prior that is none of them."""
    return Sandwich(tuple(genes), seed, prior(config.prior), config)
