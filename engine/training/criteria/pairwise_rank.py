"""Pairwise rank loss with a prior (Dong et al., PGONAS, 2022): of two networks the better one by it should lose less.

It needs a sampler that draws pairs, e.g. `sampler = { name = "sandwich", pairs = 2, prior = "zen" }`: pairs are ordered
by the prior, MACs if none is named, when they are drawn.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, NonNegativeFloat
from torch import Tensor

from hwnas.engine.training.criteria import Criterion, TrainedPath, TrainingStep


class Config(BaseModel):
    """By how much the one that promises more has to be better."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    margin: NonNegativeFloat = 0.0  # nats of cross-entropy


@dataclass
class PairwiseRank(Criterion):
    """relu(loss of the one that promises more - loss of the other + margin), both cross-entropies of one batch.

    The one that promises less runs first and is a number to the other: only the other is pulled down. The released
    code detaches whichever network it drew first, so that it also un-trains networks that are better than their prior;
    that half is left out.
    """

    config: Config
    _lesser: float | None = field(default=None, init=False, repr=False)

    def begin(self, step: TrainingStep) -> None:
        """No pair is open."""
        del step
        self._lesser = None

    def __call__(self, path: TrainedPath) -> Tensor:
        """See Criterion; nothing for paths that are no pair's second."""
        if path.role != "pair":
            return path.logits.sum() * 0
        loss = F.cross_entropy(path.logits, path.labels)
        if self._lesser is None:
            self._lesser = loss.item()
            return loss * 0
        lesser, self._lesser = self._lesser, None
        return F.relu(loss - lesser + self.config.margin)


def build(config: Config, *, label_smoothing: float) -> PairwiseRank:  # noqa: ARG001 (the role's)
    """The criterion."""
    return PairwiseRank(config)
