"""Cross-entropy against the labels, for every path."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from hwnas.engine.training.criteria import Criterion, TrainedPath


class Config(BaseModel):
    """Nothing to choose."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class CrossEntropy(Criterion):
    """Label-smoothed cross-entropy."""

    label_smoothing: float

    def __call__(self, path: TrainedPath) -> Tensor:
        """See Criterion."""
        return F.cross_entropy(path.logits, path.labels, label_smoothing=self.label_smoothing)


def build(config: Config, *, label_smoothing: float) -> CrossEntropy:  # noqa: ARG001 (the role's)
    """The criterion."""
    return CrossEntropy(label_smoothing)
