"""Cross-entropy against the labels, for every path."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from hwnas.engine.training.samplers import PathRole


@dataclass(frozen=True)
class CrossEntropy:
    """Label-smoothed cross-entropy."""

    label_smoothing: float

    def __call__(self, logits: Tensor, labels: Tensor, *, role: PathRole, teacher: Tensor | None) -> Tensor:
        """See Criterion."""
        del role, teacher
        return F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)


def build(*, label_smoothing: float) -> CrossEntropy:
    """The criterion."""
    return CrossEntropy(label_smoothing)
