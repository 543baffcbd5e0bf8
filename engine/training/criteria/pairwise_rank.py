"""Pairwise rank loss with a prior (Dong et al., PGONAS, 2022): of two networks the larger should lose less.

It needs a sampler that draws pairs, e.g. `sampler = { name = "sandwich", pairs = 2 }`; the prior is MACs, by which
pairs are ordered when they are drawn.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, NonNegativeFloat
from torch import Tensor

from hwnas.engine.training.criteria import Criterion, TrainedPath, TrainingStep


class Config(BaseModel):
    """By how much the larger has to be better."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    margin: NonNegativeFloat = 0.0  # nats of cross-entropy


@dataclass
class PairwiseRank(Criterion):
    """relu(loss of the larger - loss of the smaller + margin), both cross-entropies of one batch.

    The smaller of a pair runs first and is a number to the larger one: only the larger is pulled down. The released
    code detaches whichever network it drew first, so that it also un-trains small networks that are good; that half
    is left out.
    """

    config: Config
    _smaller: float | None = field(default=None, init=False, repr=False)

    def begin(self, step: TrainingStep) -> None:
        """No pair is open."""
        del step
        self._smaller = None

    def __call__(self, path: TrainedPath) -> Tensor:
        """See Criterion; nothing for paths that are no pair's second."""
        if path.role != "pair":
            return path.logits.sum() * 0
        loss = F.cross_entropy(path.logits, path.labels)
        if self._smaller is None:
            self._smaller = loss.item()
            return loss * 0
        smaller, self._smaller = self._smaller, None
        return F.relu(loss - smaller + self.config.margin)


def build(config: Config, *, label_smoothing: float) -> PairwiseRank:  # noqa: ARG001 (the role's)
    """The criterion."""
    return PairwiseRank(config)
