"""Balanced draws (Dong et al., PGONAS, 2022): of a few uniform candidates one is taken by its share of their MACs.

Large networks have more to learn, so they are trained more often.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt

from hwnas.engine.architecture import Gene, IntArray, extreme, sample, to_architecture
from hwnas.engine.objective import Costs
from hwnas.engine.training.samplers import Prior, Sampler, TrainingPath
from hwnas.engine.training.samplers.sandwich import pair


class Config(BaseModel):
    """What is trained at a step; the defaults are those of the released code of PGONAS."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    candidates: PositiveInt = 3  # of which one is taken
    middle: PositiveInt = 2  # architectures that are drawn this way
    sandwich: bool = True  # the largest and the smallest too
    pairs: NonNegativeInt = 0  # pairs of uniform architectures, for criteria that compare two
    prior: str = "macs"  # by what the two are ordered: MACs, or a proxy such as zen


@dataclass(frozen=True)
class CostWeighted(Sampler):
    """Draws with probability proportional to MACs among a few candidates."""

    genes: tuple[Gene, ...]
    seed: int
    macs: Costs
    promise: Costs
    config: Config

    def paths(self, step: int) -> tuple[TrainingPath, ...]:
        """See Sampler."""
        rng = np.random.default_rng([self.seed, step])
        middle = [TrainingPath(to_architecture(self._draw(rng)), "random") for _ in range(self.config.middle)]
        ends = [
            TrainingPath(extreme(self.genes, largest=True), "largest"),
            TrainingPath(extreme(self.genes, largest=False), "smallest"),
        ]
        paths = [*ends, *middle] if self.config.sandwich else middle
        for _ in range(self.config.pairs):
            paths += pair(sample(self.genes, 2, rng), self.promise)
        return tuple(paths)

    def _draw(self, rng: np.random.Generator) -> IntArray:
        candidates = sample(self.genes, self.config.candidates, rng)
        costs = np.asarray(self.macs(candidates), dtype=float)
        weights = costs / costs.sum() if costs.sum() > 0 else None
        row: IntArray = candidates[rng.choice(len(candidates), p=weights)]
        return row


def build(config: Config, genes: Sequence[Gene], *, seed: int, prior: Prior) -> CostWeighted:
    """The sampler for a space's genes. Raises LookupError with the known names for a prior that is none of them."""
    return CostWeighted(tuple(genes), seed, prior("macs"), prior(config.prior), config)
