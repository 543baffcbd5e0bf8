"""The loss of a path: one file a criterion, each with `build(label_smoothing=...) -> Criterion`."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from hwnas.engine.training.samplers import PathRole


class Criterion(Protocol):
    """Loss of one path of a step."""

    def __call__(self, logits: Tensor, labels: Tensor, *, role: PathRole, teacher: Tensor | None) -> Tensor:
        """Scalar loss; `teacher` holds the largest architecture's logits of the step, without gradient, if it ran."""
        ...
