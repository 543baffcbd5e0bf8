"""Logit distillation with a temperature (Hinton et al., 2015), from the step's largest or a trained supernet."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, PositiveFloat
from torch import Tensor, nn

from hwnas.engine.training.checkpoint import CheckpointError, load
from hwnas.engine.training.criteria import Criterion, TrainedPath, TrainingStep


class Config(BaseModel):
    """Who teaches, and how softly."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    temperature: PositiveFloat = 1.0
    teacher: Path | None = None  # folder of a finished training of the same space; none: the step's largest


@dataclass
class LogitDistillation(Criterion):
    """temperature^2 * KL(teacher || student) of softened predictions, averaged over the batch.

    The teacher is the largest architecture: of the same step, where it ran before the student (nothing is asked of a
    path without one), or of a supernet trained before. Add `cross_entropy` for what the labels say.
    """

    config: Config
    _frozen: nn.Module | None = field(default=None, init=False, repr=False)
    _logits: Tensor | None = field(default=None, init=False, repr=False)

    def prepare(self, supernet: nn.Module, features: object) -> None:
        """Load the trained teacher, if there is one. Raises CheckpointError."""
        del features
        if self.config.teacher is None:
            return
        found = load(self.config.teacher)
        if found is None:
            raise CheckpointError(f"{self.config.teacher}: no checkpoint to be taught by: give a training's folder")
        self._frozen = copy.deepcopy(supernet)  # its largest architecture is active while a training is prepared
        try:
            self._frozen.load_state_dict(found.model)
        except RuntimeError as error:
            first = str(error).splitlines()[-1].strip()
            raise CheckpointError(f"{self.config.teacher}: a checkpoint of another space ({first})") from error
        self._frozen.eval()

    @torch.no_grad()
    def begin(self, step: TrainingStep) -> None:
        """Ask the trained teacher, if there is one."""
        if self._frozen is not None:
            self._logits = self._frozen(step.images)

    def __call__(self, path: TrainedPath) -> Tensor:
        """See Criterion."""
        teacher = self._logits if self._frozen is not None else path.teacher
        if teacher is None or (self._frozen is None and path.role == "largest"):
            return path.logits.sum() * 0
        t = self.config.temperature
        student, target = (path.logits / t).log_softmax(1), (teacher / t).softmax(1)
        return t * t * F.kl_div(student, target, reduction="batchmean")


def build(config: Config, *, label_smoothing: float) -> LogitDistillation:  # noqa: ARG001 (the role's)
    """The criterion."""
    return LogitDistillation(config)
