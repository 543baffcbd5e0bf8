"""Feature distillation: a path's inner outputs are drawn towards those of a teacher on the same batch.

One criterion for what papers know by several names: alignment with an anchor (MAGIC-A, Xu et al., ICML 2022), feature
alignment by the maximum over channels (FlowNAS, Lin et al., IJCV 2023), hidden losses through a learnt projection
(TinyBERT, Jiao et al., 2020).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat
from torch import Tensor, nn

from hwnas.engine.architecture import Architecture
from hwnas.engine.training.criteria import Criterion, Features, TrainedPath, TrainingStep


class Config(BaseModel):
    """What is compared with what, and how."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    taps: tuple[str, ...] = ()  # submodules of the supernet; none: those that the supernet itself names as `taps`
    pairing: dict[str, str] = {}  # tap of the student -> tap of the teacher, where it is another one
    match: Literal["mse", "channel_max"] = "mse"
    projector: Literal["slice", "linear"] = "slice"
    teacher: Literal["largest", "anchor"] = "largest"
    replace_below: float = Field(0.9, gt=0, le=1)  # a path becomes the anchor when its loss is below this share of it
    floor: PositiveFloat = 1e-3  # added to the mean squares by whose roots outputs are divided


@dataclass
class FeatureDistillation(Criterion):
    """Mean over taps of the mean squared distance to the teacher's output, each divided by its root mean square.

    So each tap counts alike, and only directions are drawn together. Distances of the outputs as they are, or relative
    to the teacher's, reward small outputs; where the teacher shares the student's weights it shrinks along, until both
    are nothing (seen in training). Widths that differ are compared on the leading channels (`slice`), or the student's
    go through a learnt 1x1 projection that begins as that slice (`linear`); `channel_max` compares the maxima over
    channels, whatever their number. Sizes that differ are an error.

    The teacher's outputs carry no gradient. An `anchor` is run once a step before the paths; it starts as the first
    path, and a path whose loss on a batch is below `replace_below` of the anchor's on the same batch takes its place
    (the papers leave open how the best path is known; a validation pass a step would cost more than the training).
    """

    config: Config
    _taps: tuple[str, ...] = field(default=(), init=False, repr=False)
    _projections: nn.ModuleDict = field(default_factory=nn.ModuleDict, init=False, repr=False)
    _anchor: Architecture | None = field(default=None, init=False)
    _anchor_loss: float = field(default=float("inf"), init=False, repr=False)
    _anchor_features: Features = field(default_factory=dict, init=False, repr=False)

    @property
    def taps(self) -> tuple[str, ...]:
        """Taps of student and teacher."""
        mine = self.config.taps or self._taps
        return tuple(dict.fromkeys((*mine, *(self.config.pairing.get(tap, tap) for tap in mine))))

    @property
    def module(self) -> nn.Module | None:
        """The projections, if there are any."""
        return self._projections if len(self._projections) else None

    def prepare(self, supernet: nn.Module, features: Features) -> None:
        """Find the taps and make the projections. Raises ValueError for taps that the supernet does not have."""
        if not self.config.taps:
            self._taps = tuple(getattr(supernet, "taps", ()))
        known = {name for name, _ in supernet.named_modules()}
        missing = [tap for tap in self.taps if tap not in known]
        if missing or not self.taps:
            raise ValueError(
                f"feature_distillation: {missing[0] if missing else 'this space'!r} is no tap: name submodules of the "
                f"supernet in `taps`, such as {', '.join(sorted(known - {''})[:3])}"
            )
        if self.config.projector == "linear":
            for student in self.config.taps or self._taps:
                teacher = self.config.pairing.get(student, student)
                if student in features and teacher in features:
                    shape = features[teacher].shape[1], features[student].shape[1]
                    self._projections[student.replace(".", "_")] = Projection(*shape)

    def begin(self, step: TrainingStep) -> None:
        """Run the anchor, if there is to be one."""
        if self.config.teacher != "anchor":
            return
        if self._anchor is None:
            self._anchor = step.architectures[0]
        logits, self._anchor_features = step.ask(self._anchor)
        self._anchor_loss = F.cross_entropy(logits, step.labels).item()

    def __call__(self, path: TrainedPath) -> Tensor:
        """See Criterion; nothing where there is no teacher or nothing to compare."""
        anchored = self.config.teacher == "anchor"
        teacher = self._anchor_features if anchored else path.teacher_features
        is_teacher = path.architecture == self._anchor if anchored else path.role == "largest"
        if anchored and not is_teacher:
            loss = F.cross_entropy(path.logits.detach(), path.labels).item()
            if loss < self.config.replace_below * self._anchor_loss:
                self._anchor, self._anchor_loss = path.architecture, loss  # from the next step on it teaches
        distances = []
        if teacher is not None and not is_teacher:
            for tap in self.config.taps or self._taps:
                other = self.config.pairing.get(tap, tap)
                if tap in path.features and other in teacher:
                    distances.append(self._distance(tap, path.features[tap], teacher[other]))
        return torch.stack(distances).mean() if distances else path.logits.sum() * 0

    def state(self) -> dict[str, Any]:
        """The anchor."""
        return {} if self._anchor is None else {"anchor": list(self._anchor)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """The anchor."""
        self._anchor = tuple(int(option) for option in state["anchor"])

    def _distance(self, tap: str, student: Tensor, teacher: Tensor) -> Tensor:
        if student.shape[2:] != teacher.shape[2:]:
            raise ValueError(
                f"feature_distillation: {tap} has outputs of {tuple(student.shape)} and the teacher of "
                f"{tuple(teacher.shape)}: tap layers of one size"
            )
        if self.config.match == "channel_max":
            student, teacher = student.amax(1), teacher.amax(1)
        elif tap.replace(".", "_") in self._projections:
            student = self._projections[tap.replace(".", "_")](student)
        if self.config.match == "mse":
            channels = min(student.shape[1], teacher.shape[1])
            student, teacher = student[:, :channels], teacher[:, :channels]
        return F.mse_loss(self._unit(student), self._unit(teacher))

    def _unit(self, x: Tensor) -> Tensor:
        return x / (x.square().mean() + self.config.floor).sqrt()


class Projection(nn.Module):
    """1x1 projection of as many leading channels as there are; begins as the identity on them."""

    def __init__(self, out_channels: int, in_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(out_channels, in_channels))

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, ...) with c up to `in_channels` -> (n, out_channels, ...)."""
        return torch.einsum("oc,nc...->no...", self.weight[:, : x.shape[1]], x)


def build(config: Config, *, label_smoothing: float) -> FeatureDistillation:  # noqa: ARG001 (the role's)
    """The criterion."""
    return FeatureDistillation(config)
