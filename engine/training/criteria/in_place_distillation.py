"""In-place distillation: the largest architecture learns from the labels, the others from it."""

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
class InPlaceDistillation(Criterion):
    """Cross-entropy with the soft labels of the largest architecture of the same step.

    Source: Yu and Huang, ICCV 2019; label smoothing for the largest alone, as in BigNAS (Yu et al., ECCV 2020).
    Where a step has no largest architecture, the labels themselves teach; so they do for pairs, whose losses have to
    be comparable with what a network alone would reach.
    """

    label_smoothing: float

    def __call__(self, path: TrainedPath) -> Tensor:
        """See Criterion."""
        if path.role in ("largest", "pair") or path.teacher is None:
            return F.cross_entropy(path.logits, path.labels, label_smoothing=self.label_smoothing)
        return F.cross_entropy(path.logits, path.teacher.softmax(1))


def build(config: Config, *, label_smoothing: float) -> InPlaceDistillation:  # noqa: ARG001 (the role's)
    """The criterion."""
    return InPlaceDistillation(label_smoothing)
