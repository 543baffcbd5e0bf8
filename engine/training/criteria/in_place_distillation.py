"""In-place distillation: the largest architecture learns from the labels, the others from it."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from hwnas.engine.training.samplers import PathRole


@dataclass(frozen=True)
class InPlaceDistillation:
    """Cross-entropy with the soft labels of the largest architecture of the same step.

    Source: Yu and Huang, ICCV 2019; label smoothing for the largest alone, as in BigNAS (Yu et al., ECCV 2020).
    Where a step has no largest architecture, the labels themselves teach.
    """

    label_smoothing: float

    def __call__(self, logits: Tensor, labels: Tensor, *, role: PathRole, teacher: Tensor | None) -> Tensor:
        """See Criterion."""
        if role == "largest" or teacher is None:
            return F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        return F.cross_entropy(logits, teacher.softmax(1))


def build(*, label_smoothing: float) -> InPlaceDistillation:
    """The criterion."""
    return InPlaceDistillation(label_smoothing)
